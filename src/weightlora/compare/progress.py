"""The progress of a comparison: bars in a terminal, a few lines elsewhere."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..train.result import Result
from .clock import Clock, spell
from .runs import Run
from .spec import Comparison

__all__ = ["BarWatcher", "LineWatcher", "make_watcher"]


def make_watcher(console: Console, jobs: int) -> "LineWatcher":
    """What shows a comparison on this console: `BarWatcher` in a terminal, `LineWatcher` elsewhere."""
    return BarWatcher(console, jobs) if console.is_terminal else LineWatcher(console, jobs)


class LineWatcher:
    """One line when a run ends, and one after each half of a run that is long."""

    LONG = 60.0
    """Seconds after which a run is long."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console, self._jobs, self._lock = console, jobs, threading.Lock()
        self._clock, self._total, self._done = Clock([], jobs), 0, 0
        self._told: set[tuple[str, int]] = set()

    def __enter__(self) -> "LineWatcher":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, comparison: Comparison, done: Sequence[tuple[Run, Result]], total: int) -> None:
        """Say how many runs there are."""
        names = {run.name for run, _ in done}
        kinds = [run.method for run in comparison.tuning_runs() if run.name not in names]
        kinds += [run.method for run in comparison.runs(comparison.first_rates) if run.name not in names]
        self._clock, self._total, self._done = Clock(kinds, self._jobs), total, len(done)
        for run, result in done:
            self._clock.know(run.method, result.wall_seconds)
        self._print(f"{total} run{'s' * (total != 1)}, {len(done)} of them done, {self._jobs} at a time")

    def aside(self, paths: Sequence[Path]) -> None:
        """Name the files that were renamed."""
        self._print(
            f"set aside, because they are cut short, have other settings or are of another version: "
            f"{', '.join(map(str, paths))}"
        )

    def step(self, run: Run, step: int, steps: int) -> None:
        """Note the progress of a run."""
        share = step / steps if steps else 0.0
        with self._lock:
            self._clock.step(run.name, run.method, share)
            self._show_step(run, step, steps)

    def end(self, run: Run, seconds: float | None, error: str | None) -> None:
        """Say that a run ended."""
        with self._lock:
            self._clock.end(run.name, run.method, seconds)
            self._done += 1
            self._show_end(run, f"{run.name}: {error or f'{seconds:.0f} s'}", error is not None)

    def _show_step(self, run: Run, step: int, steps: int) -> None:
        if steps and step < steps and 2 * step >= steps and (run.name, 1) not in self._told:
            self._told.add((run.name, 1))
            if (self._clock.elapsed(run.name) or 0.0) * 2 >= self.LONG:
                self._print(f"{run.name}: step {step}/{steps}; {spell(self._clock.left())}")

    def _show_end(self, run: Run, line: str, failed: bool) -> None:
        self._print(f"[{self._done}/{self._total}] {line}; {spell(self._clock.left())}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarWatcher(LineWatcher):
    """A bar for all runs with the time that is left, and one for each run that is not finished."""

    def __init__(self, console: Console, jobs: int) -> None:
        super().__init__(console, jobs)
        text, left = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
        self._progress = Progress(text, BarColumn(), MofNCompleteColumn(), left, console=console)
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> "BarWatcher":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, comparison: Comparison, done: Sequence[tuple[Run, Result]], total: int) -> None:
        super().begin(comparison, done, total)
        self._all = self._progress.add_task("all runs", total=total, completed=len(done), left="")

    def _show_step(self, run: Run, step: int, steps: int) -> None:
        if run.name not in self._bars:
            self._bars[run.name] = self._progress.add_task(run.name, total=None, left="")
        self._progress.update(self._bars[run.name], completed=step, total=steps or None)
        self._progress.update(self._all, left=spell(self._clock.left()))

    def _show_end(self, run: Run, line: str, failed: bool) -> None:
        if (bar := self._bars.pop(run.name, None)) is not None:
            self._progress.remove_task(bar)
        self._progress.update(self._all, completed=self._done, left=spell(self._clock.left()))
        if failed:
            self._print(line)
