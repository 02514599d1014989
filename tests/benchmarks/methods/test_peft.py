"""Methods that exist only to be compared: each trains, and the command line says where they are."""

from pathlib import Path

import pytest
from benchmarks.commands import train
from benchmarks.methods import peft

from weightlora.cli import build_parser, main, run_command
from weightlora.train.methods import IN_BENCHMARKS, METHODS
from weightlora.train.result import read_result


def arguments(world: Path, method: str, output: Path) -> list[str]:
    given = ["train", "--task", "cola", "--model", world / "deberta", "--dataset", world / "glue", "--method", method]
    given += ["--max_steps", 8, "--max_length", 64, "--keep", 10, "--use_cpu", "--per_device_train_batch_size", 4]
    return list(map(str, [*given, "--save_strategy", "no", "--output_dir", output]))


def test_every_method_that_left_the_package_is_here():
    assert set(IN_BENCHMARKS) == peft.METHODS.keys() and not METHODS.keys() & peft.METHODS.keys()


@pytest.mark.parametrize("method", IN_BENCHMARKS)
def test_a_method_trains(world: Path, tmp_path: Path, method: str):
    assert run_command(build_parser((train,), "benchmarks"), arguments(world, method, tmp_path)) == 0
    result = read_result(tmp_path)
    keeps = method in {"grad-norm", "kappa"}
    there = 12 if method == "eva" else 13  # EVA leaves the pooler out
    assert (result.adapters_before, result.adapters_after) == (there, 10 if keeps else there)
    assert result.steps == 8 and result.plan is not None and result.plan["keep"] == (10 if keeps else None)


def test_the_package_says_where_they_are(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(arguments(world, "adalora", tmp_path)) == 2
    error = capsys.readouterr().err
    assert "python -m benchmarks train --method adalora" in error and error.count("\n") == 1
