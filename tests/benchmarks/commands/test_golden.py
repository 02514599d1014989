"""`python -m benchmarks golden` prints what differs, and its exit code says whether anything does."""

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import golden
from benchmarks.__main__ import main
from benchmarks.commands import progress

from weightlora.train.result import read_result, write_result

CASE = "rt-weightlora"


@pytest.mark.parametrize("digit", [0.0, 1e-15])
def test_a_difference_is_printed(tmp_path, monkeypatch, capsys, digit):
    stored = read_result(Path(golden.__file__).parent / f"{CASE}.json")
    loss = {"held_out_loss": stored.held_out_loss + digit}
    made = replace(stored, metrics={"test": {**stored.metrics["test"], **loss}})

    def execute(runs, jobs, environment):
        assert jobs == 1 and environment["OMP_NUM_THREADS"] == "1"
        (run,) = runs
        write_result(run.output, made)
        return 0

    monkeypatch.setattr(progress, "execute_with_progress", execute)
    arguments = ["golden", "--cases", CASE, "--jobs", "1", "--output_dir", str(tmp_path)]
    assert main(arguments) == (1 if digit else 0)
    printed = capsys.readouterr().out
    assert ("metrics was" in printed) is bool(digit)
    assert ("to the last digit" in printed) is not bool(digit)
