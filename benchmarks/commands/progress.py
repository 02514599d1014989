"""Executes many runs and shows the progress, in a terminal or in a log."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from weightlora.compare.runner import Process, execute, python_module

from ..experiments import Run


def execute_with_progress(runs: Sequence[Run], jobs: int, environment: Mapping[str, str] | None = None) -> int:
    """Execute the runs that have no result yet, each in a process of its own; returns 1 if any failed, else 0.

    Args:
        runs: In the order in which they begin.
        jobs: Number of runs at the same time. The cores are divided among them.
        environment: Variables of every run.
    """
    from rich.console import Console

    from weightlora.compare.progress import Watcher

    aside = sum([run.set_aside() for run in runs])
    processes = [_process(run, environment or {}) for run in runs if run.result() is None]
    with Watcher(Console(), jobs) as watcher:
        watcher.begin(len(runs) - len(processes), len(runs))
        if aside:
            print(f"{aside} files renamed to *.aside: incomplete, or of other settings or another version")
        return 1 if execute(processes, jobs, watcher.end, watcher.step) else 0


def _process(run: Run, environment: Mapping[str, str]) -> Process:
    arguments = ["--experiment", json.dumps(run.experiment), "--seed", str(run.seed), "--output", str(run.output)]
    # Experiments load nothing from the hub. A recipe may.
    offline = {} if "settings" in run.experiment else {"HF_HUB_OFFLINE": "1"}
    return Process(
        f"{run.kind} {run.output.stem}",
        python_module("benchmarks.worker", *arguments),
        {**offline, **environment},
    )


@contextlib.contextmanager
def progress_bar(total: int) -> Iterator[Callable[[], None]]:
    """One bar on stderr in a terminal and nothing elsewhere; the function advances it by one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from weightlora.cli.quiet import quiet_libraries

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    with quiet_libraries(), Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda: progress.advance(bar)
