"""`python -m benchmarks run`: bad arguments are named before anything runs, and what is done is not run again."""

import pytest
from benchmarks.__main__ import main
from benchmarks.experiments import plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "sst"], "there are no experiments in benchmarks/quality"),
        (["--jobs", "0"], "0 is not at least 1"),
        (["--with", "max_steps"], "'max_steps' is not KEY=VALUE"),
        (["--model", "m"], "unrecognized arguments: --model m"),
    ],
)
def test_bad_arguments_are_named_before_anything_runs(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["run", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_is_not_run_again(root, finish, capsys):
    for run in plan(root, None, None, None):
        finish(run)
    assert main(["run", "--root", str(root)]) == 0
    assert "10 runs, 10 of them done" in capsys.readouterr().out


def test_a_run_that_fails_is_reported_with_its_reason(root, finish, capsys):
    for run in plan(root, ["a"], ["lora", "k5"], None):
        finish(run)
    spoiled = plan(root, ["a"], ["k5"], 1)[0].output
    spoiled.write_text(spoiled.read_text()[:50])
    assert main(["run", "--root", str(root), "--tasks", "a", "--methods", "lora,k5", "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    assert "4 runs, 3 of them done" in printed and "1 files renamed to *.aside" in printed
    assert "a/k5 seed-0: task 'a' is unknown" in printed
