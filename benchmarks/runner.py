"""Runs experiments, each in a process of its own, N at a time; what is there already is not run again."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from .experiments import Run

Report = Callable[[Run, float | None, str | None], None]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has, inside a container or under `taskset`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    failures: list[tuple[Run, str]] = []
    threads = max(1, usable_cores() // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_execute_one, run, threads): run for run in runs}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    run = waiting.pop(future)
                    seconds, error = future.result()
                    if error is not None:
                        failures.append((run, error))
                    report(run, None if error else seconds, error)
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    return failures


def expected_seconds(runs: list[Run], seconds: dict[str, list[float]]) -> float:
    """Time that the runs will take one after another: each as long as its like did, or as the mean of all."""
    known = [value for values in seconds.values() for value in values]
    if not known:
        return 0.0
    overall = sum(known) / len(known)
    total = 0.0
    for run in runs:
        like = seconds.get(kind(run), [])
        total += sum(like) / len(like) if like else overall
    return total


def kind(run: Run) -> str:
    """Runs of one kind take about the same time."""
    return f"{run.experiment['task']}/{run.experiment['label']}"


def _execute_one(run: Run, threads: int) -> tuple[float, str | None]:
    environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(threads))
    environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    if not {"data", "settings"} & run.experiment.keys():  # our own tasks need no hub; a user's model may
        environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-m", "benchmarks.experiment", "--experiment", json.dumps(run.experiment)]
    command += ["--seed", str(run.seed), "--output", str(run.output)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return 0.0, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return time.perf_counter() - began, None
