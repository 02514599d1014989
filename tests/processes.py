"""Runs functions of `workers.py` on several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STEPS = 8
RULES = {
    "credit": {"keep": 3, "select_steps": 4},
    "gates": {"keep": 3, "select_steps": 4, "selection": "stoiht", "omega_lr": 1.0, "warmup_steps": 2},
    "chance": {"keep": 3, "select_steps": 4, "selection": "random", "seed": 3},
    "credit in rounds, growing": {"keep": 3, "select_steps": 4, "rounds": 2, "expand": "random"},
}
TORCHRUN = ["torch.distributed.run", "--standalone"]
# What `accelerate config` writes into its file.
ACCELERATE = ["accelerate.commands.launch", "--use_fsdp", "--fsdp_version=1", "--fsdp_use_orig_params=true"]
ACCELERATE += ["--fsdp_state_dict_type=FULL_STATE_DICT", "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP"]
ACCELERATE += ["--fsdp_sync_module_states=false", "--fsdp_cpu_ram_efficient_loading=false", "--main_process_port=0"]
ACCELERATE += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]


def launch(script: str, processes: int, *arguments: str, check: bool = True, by=TORCHRUN):
    """Run a function of `workers.py` under torchrun, or accelerate."""
    number = f"--nproc_per_node={processes}" if by is TORCHRUN else f"--num_processes={processes}"
    command = [sys.executable, "-m", *by, number]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, str(HERE / "workers.py"), script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def outcomes(directory: Path, processes: int) -> list[dict]:
    return [json.loads((directory / f"rank-{rank}.json").read_text()) for rank in range(processes)]
