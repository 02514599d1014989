"""`python -m weightlora` is the command."""

import subprocess
import sys

from weightlora import __version__


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-m", "weightlora", "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_the_version_comes_alone_and_imports_nothing_that_takes_seconds() -> None:
    """It needs neither torch nor PEFT, which take seconds to import."""
    done = run()
    assert (done.stdout, done.stderr) == (f"weightlora {__version__}\n", "")
    loaded = run("-X", "importtime").stderr
    assert "weightlora.cli" in loaded and not any(f"| {name}\n" in loaded for name in ("torch", "peft", "numpy"))
