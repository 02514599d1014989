"""`python -m weightlora` is the command."""

import subprocess
import sys

import weightlora


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "weightlora", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"weightlora {weightlora.__version__}"
