"""What a run was made with: package versions, machine, commit and memory."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("weightlora", "torch", "peft", "transformers", "accelerate", "datasets")


def versions() -> dict[str, str]:
    """Package -> installed version."""
    return {name: version(name) for name in PACKAGES}


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware and the interpreter of this process."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The commit of this package's code; None if git does not track it, as in the `.venv` of another project."""
    file = Path(__file__)
    command = ["git", "-C", str(file.parent), "rev-parse", "HEAD", f"HEAD:./{file.name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return done.stdout[:12] if done.returncode == 0 else None


def peak_process_bytes() -> int | None:
    """Largest resident memory that this process has had; None on Windows, which does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def peak_gpu_bytes() -> int | None:
    """Largest memory that torch has allocated on the GPU; None without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
