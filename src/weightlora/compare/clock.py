"""Estimate the remaining time of a comparison."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .runner import expected_seconds

__all__ = ["Clock", "spell"]

ENOUGH = 0.1
"""Share of a run that must be measured before its speed says how long it takes."""


@dataclass
class _Running:
    """A run that is not finished. Its speed is measured from its first step on, because it loads before that."""

    kind: str
    began: float
    first: tuple[float, float] | None = None
    share: float = 0.0

    def rest(self, now: float) -> float | None:
        """Seconds that are left at this speed. None while too little is known."""
        if self.first is None or self.share - self.first[1] < ENOUGH:
            return None
        return (now - self.first[0]) * (1 - self.share) / (self.share - self.first[1])


class Clock:
    """Estimates the remaining time of all runs, from those that have ended and those that are running.

    Args:
        kinds: The kind of each run that is not done. Runs of one kind take about the same time.
        jobs: Runs at a time.
        now: Gives the time in seconds.
    """

    def __init__(self, kinds: Sequence[str], jobs: int, now: Callable[[], float] = time.monotonic) -> None:
        self._left, self._jobs, self._now = list(kinds), jobs, now
        self._seconds: dict[str, list[float]] = {}
        self._running: dict[str, _Running] = {}

    def know(self, kind: str, seconds: float) -> None:
        """Note the time of a run that ended earlier."""
        self._seconds.setdefault(kind, []).append(seconds)

    def step(self, name: str, kind: str, share: float) -> None:
        """Note that a share of a run is done. The first call starts its time."""
        if name not in self._running:
            if kind in self._left:
                self._left.remove(kind)
            self._running[name] = _Running(kind, self._now())
        run = self._running[name]
        run.share = share
        if share > 0 and run.first is None:
            run.first = (self._now(), share)

    def end(self, name: str, kind: str, seconds: float | None) -> None:
        """Note that a run ended, with its time if it did not fail."""
        if self._running.pop(name, None) is None and kind in self._left:
            self._left.remove(kind)
        if seconds is not None:
            self.know(kind, seconds)

    def elapsed(self, name: str) -> float | None:
        """Seconds since a run began. None if it is not running."""
        return self._now() - self._running[name].began if name in self._running else None

    def left(self) -> float | None:
        """Seconds until all runs are done. None while nothing is known."""
        now, here, longest = self._now(), 0.0, 0.0
        estimates: dict[str, list[float]] = {}
        for run in self._running.values():
            if (rest := run.rest(now)) is not None:
                estimates.setdefault(run.kind, []).append(now - run.began + rest)
        known = {**estimates, **self._seconds}
        if not known:
            return None if self._left or self._running else 0.0
        for run in self._running.values():
            if (rest := run.rest(now)) is None:
                rest = max(0.0, expected_seconds([run.kind], known) - (now - run.began))
            here, longest = here + rest, max(longest, rest)
        return max(longest, (here + expected_seconds(self._left, known)) / self._jobs)


def spell(seconds: float | None) -> str:
    """A time as text: `"about 40 s left"`, `"about 12 min left"`, `"about 3.5 h left"`."""
    if seconds is None:
        return "time left not known yet"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"
