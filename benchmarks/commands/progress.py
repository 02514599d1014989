"""Executes many runs and shows the progress, in a terminal or in a log."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from weightlora.compare.runner import Process, execute, python_module

from ..experiments import Run

__all__ = ["execute_with_progress", "progress_bar"]


def execute_with_progress(runs: Sequence[Run], jobs: int, environment: Mapping[str, str] | None = None) -> int:
    """Execute the runs that have no result yet, each in a process of its own; returns 1 if any failed, else 0.

    Args:
        runs: In the order in which they begin.
        jobs: Number of runs at the same time. The cores are divided among them.
        environment: Variables of every run.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    aside = sum([run.set_aside() for run in runs])
    processes = [_process(run, environment or {}) for run in runs if run.result() is None]
    done, terminal, left = len(runs) - len(processes), sys.stdout.isatty(), TimeRemainingColumn()
    print(f"{len(runs)} runs, {done} of them done, {jobs} at a time", flush=True)
    if aside:
        print(f"{aside} files renamed to *.aside: incomplete, or of other settings or another version")
    columns = (BarColumn(), MofNCompleteColumn(), left, "left", TextColumn("{task.description}"))
    with Progress(*columns, disable=not terminal, speed_estimate_period=math.inf) as progress:
        bar = progress.add_task("", total=len(runs), completed=done)

        def on_end(process: Process, took: float | None, error: str | None) -> None:
            progress.update(bar, advance=1, description=process.name)
            if error or not terminal:
                line = f"{process.name}: {error or f'{took:.0f} s'}, {left.render(progress.tasks[bar])} left"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        failures = execute(processes, jobs, on_end)
    return 1 if failures else 0


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
