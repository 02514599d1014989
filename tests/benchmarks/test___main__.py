"""`python -m benchmarks` is the command, and it has all commands."""

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import commands
from benchmarks.__main__ import COMMANDS, main

import weightlora

ROOT = Path(__file__).parents[2]


def test_the_module_is_the_command():
    line = [sys.executable, "-m", "benchmarks", "--version"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == f"weightlora {weightlora.__version__}"


def test_every_command_is_there(capsys):
    folder = Path(commands.__file__).parent
    names = {path.stem for path in folder.glob("*.py") if "def add_parser(" in path.read_text(encoding="utf-8")}
    assert {command.__name__.rpartition(".")[2] for command in COMMANDS} == names
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and shown.startswith("usage: benchmarks ")
    listed = {line.split()[0] for line in shown.splitlines() if line.startswith("    ") and line.strip()}
    assert names <= listed
