"""The progress of a comparison: bars in a terminal, a few lines elsewhere."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, Task, TimeRemainingColumn

from ..wording import counted
from .runner import Process


class Watcher:
    """In a terminal, a bar for all runs with the time that is left, and one for each run that is not finished.

    Elsewhere one line when a run ends, and one after the first half of a run that is long.

    Args:
        console: Where to show it.
        jobs: Runs at a time.
    """

    LONG = 30.0
    """Seconds that the first half of a long run takes."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console, self._jobs, self._done, self._total = console, jobs, 0, 0
        # The speed is a mean over many runs: each makes no steps while it loads or evaluates.
        self._progress = Progress(console=console, disable=not console.is_terminal, speed_estimate_period=math.inf)
        self._runs: dict[str, Task] = {}

    def __enter__(self) -> "Watcher":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, done: int, total: int) -> None:
        """Say how many runs there are, and how many of them are done."""
        self._all, self._done, self._total = self._add("all runs", 100 * total, 100 * done), done, total
        self._measure()
        self._print(f"{counted(total, 'run')}, {done} of them done, {self._jobs} at a time")

    def aside(self, paths: Sequence[Path]) -> None:
        """Name the files that were renamed."""
        self._print(
            f"set aside, because they are cut short, have other settings or are of another version: "
            f"{', '.join(map(str, paths))}"
        )

    def step(self, run: Process, step: int, steps: int) -> None:
        """Note the progress of a run. The first call starts its time."""
        if run.name not in self._runs:
            self._runs[run.name] = self._add(run.name, total=100)
        task = self._runs[run.name]
        before, percent = task.completed, 100 * step // steps if steps else 0
        self._advance(task, percent)
        if before < 50 <= percent < 100 and (task.elapsed or 0) >= self.LONG and not self._console.is_terminal:
            self._print(f"{run.name}: step {step}/{steps}; {self._left()}")

    def end(self, run: Process, seconds: float | None, error: str | None) -> None:
        """Say that a run ended."""
        task = self._runs.pop(run.name)
        self._advance(task, 100)
        self._measure()
        self._progress.remove_task(task.id)
        self._done += 1
        if error is not None or not self._console.is_terminal:
            self._print(f"[{self._done}/{self._total}] {run.name}: {error or f'{seconds:.0f} s'}; {self._left()}")

    def _add(self, name: str, total: int, completed: int = 0) -> Task:
        added = self._progress.add_task(name, total=total, completed=completed)
        return next(task for task in self._progress.tasks if task.id == added)

    def _advance(self, task: Task, percent: int) -> None:
        change = percent - task.completed
        self._progress.update(task.id, completed=percent)
        self._progress.update(self._all.id, advance=change)

    def _measure(self) -> None:
        """Count the time until now in the speed, also that without steps, in which a run loads or evaluates."""
        self._progress.advance(self._all.id, 0)

    def _left(self) -> str:
        return f"{TimeRemainingColumn().render(self._all)} left"

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
