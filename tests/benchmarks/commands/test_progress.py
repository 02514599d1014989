"""Many runs: only those without a result begin, each as a process of its own, and the time that is left is told."""

import io
import json
import sys
from functools import partial

import pytest
from benchmarks.commands import progress
from benchmarks.commands.progress import execute_with_progress, progress_bar
from benchmarks.experiments import Run, plan
from rich.console import Console
from rich.progress import Progress

from weightlora.compare.runner import python_module


@pytest.fixture
def executed(monkeypatch):
    """The processes that were to run: each takes ten minutes, and those of seeds that are in `fails` fail."""

    class Executed(list):
        fails = ()

    made, now = Executed(), [0.0]
    monkeypatch.setattr("rich.console.Console", partial(Console, get_time=lambda: now[0]))

    def execute(processes, jobs, on_end, on_step):
        failures = []
        for process in processes:
            made.append(process)
            on_step(process, 0, 0)
            error = (
                "out of memory" if int(process.command[process.command.index("--seed") + 1]) in made.fails else None
            )
            now[0] += 600
            on_end(process, None if error else 600.0, error)
            failures += [(process, error)] if error else []
        return failures

    monkeypatch.setattr(progress, "execute", execute)
    return made


def test_what_is_done_is_left_out_and_the_time_left_is_told(root, finish, executed, capsys):
    runs = plan(root, ["a"], ["lora", "k5"], None)
    finish(runs[0])  # in one second
    assert execute_with_progress(runs, 2) == 0
    assert [process.name for process in executed] == ["a/k5 seed-0", "a/lora seed-1", "a/k5 seed-1"]
    assert capsys.readouterr().out.splitlines() == [
        "4 runs, 1 of them done, 2 at a time",
        "[2/4] a/k5 seed-0: 600 s; 0:20:00 left",
        "[3/4] a/lora seed-1: 600 s; 0:10:00 left",
        "[4/4] a/k5 seed-1: 600 s; 0:00:00 left",
    ]


def test_a_run_that_fails_is_told_with_its_reason_and_counts(root, finish, executed, capsys):
    runs = plan(root, ["b"], ["lora"], None)
    finish(runs[0], settings={"rank": 4})
    executed.fails = (1,)
    assert execute_with_progress(runs, 1) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "2 runs, 0 of them done, 1 at a time"
    assert printed[1].startswith("1 files renamed to *.aside")
    assert printed[2:] == [
        "[1/2] b/lora seed-0: 600 s; 0:10:00 left",
        "[2/2] b/lora seed-1: out of memory; 0:00:00 left",
    ]


def test_a_run_is_one_process_with_its_settings(root, executed, tmp_path):
    [run] = plan(root, ["a"], ["k5"], 1)
    recipe = Run({"task": "cola", "label": "lora", "settings": {"rank": 2}}, 18, tmp_path / "seed-18.json")
    execute_with_progress([run, recipe], 1, {"OMP_NUM_THREADS": "1"})
    for process, wanted in zip(executed, (run, recipe), strict=True):
        given = ["--experiment", json.dumps(wanted.experiment), "--seed", str(wanted.seed)]
        assert process.command == python_module("benchmarks.worker", *given, "--output", str(wanted.output))
    assert executed[0].environment == {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    assert executed[1].environment == {"OMP_NUM_THREADS": "1"}, "a recipe may load from the hub"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_in_a_terminal_alone(monkeypatch, terminal):
    out = io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", out)
    advanced = []
    monkeypatch.setattr(Progress, "advance", lambda self, task: advanced.append(self.tasks[task].total))
    with progress_bar(3) as advance:
        advance()
        advance()
    assert advanced == [3, 3] and bool(out.getvalue()) == terminal
