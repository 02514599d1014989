"""Runs experiments, each in a process of its own, N at a time; what is there already is not run again."""

import json
from collections.abc import Callable

from weightlora.compare import runner as pool
from weightlora.compare.runner import Process, python_module, usable_cores

from .experiments import Run

__all__ = ["execute", "expected_seconds", "kind", "pending", "usable_cores"]

Report = Callable[[Run, float | None, str | None], None]


def pending(runs: list[Run]) -> tuple[list[Run], int]:
    """The runs whose result is not there yet, and how many files that are no such result were set aside."""
    aside = sum([run.set_aside() for run in runs])
    return [run for run in runs if not run.is_done()], aside


def execute(runs: list[Run], jobs: int, report: Report) -> list[tuple[Run, str]]:
    """Run everything, `jobs` at a time, with the machine's cores divided among them.

    Args:
        runs: As `pending` returns them.
        jobs: Processes at a time.
        report: Called after each run with its seconds, or with the last line of its error.

    Returns:
        The runs that failed, each with the last line it printed.
    """
    processes = [_process(run) for run in runs]
    of = {id(process): run for process, run in zip(processes, runs, strict=True)}
    failed = pool.execute(processes, jobs, lambda process, took, error: report(of[id(process)], took, error))
    return [(of[id(process)], error) for process, error in failed]


def expected_seconds(runs: list[Run], seconds: dict[str, list[float]]) -> float:
    """Time that the runs will take one after another: each as long as its like did, or as the mean of all."""
    return pool.expected_seconds([kind(run) for run in runs], seconds)


def kind(run: Run) -> str:
    """Runs of one kind take about the same time."""
    return f"{run.experiment['task']}/{run.experiment['label']}"


def _process(run: Run) -> Process:
    command = python_module("benchmarks.experiment", "--experiment", json.dumps(run.experiment))
    command += ["--seed", str(run.seed), "--output", str(run.output)]
    # our own tasks need no hub; a user's model may
    environment = {} if {"data", "settings"} & run.experiment.keys() else {"HF_HUB_OFFLINE": "1"}
    return Process(f"{kind(run)} seed {run.seed}", command, kind(run), environment)
