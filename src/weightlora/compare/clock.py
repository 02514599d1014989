"""How long a comparison will still take."""

import time
from collections.abc import Callable, Sequence

from .runner import expected_seconds

__all__ = ["Clock", "spell"]

ENOUGH = 0.1
"""Share of a run after which its own speed says how long it takes."""


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
        self._running: dict[str, tuple[str, float, float]] = {}

    def know(self, kind: str, seconds: float) -> None:
        """Note the time of a run that ended earlier."""
        self._seconds.setdefault(kind, []).append(seconds)

    def step(self, name: str, kind: str, share: float) -> None:
        """Note that a share of a run is done. The first call starts its time."""
        if name not in self._running:
            if kind in self._left:
                self._left.remove(kind)
            self._running[name] = (kind, self._now(), share)
        else:
            kind, began, _ = self._running[name]
            self._running[name] = (kind, began, share)

    def end(self, name: str, kind: str, seconds: float | None) -> None:
        """Note that a run ended, with its time if it did not fail."""
        if self._running.pop(name, None) is None and kind in self._left:
            self._left.remove(kind)
        if seconds is not None:
            self.know(kind, seconds)

    def elapsed(self, name: str) -> float | None:
        """Seconds since a run began. None if it is not running."""
        return self._now() - self._running[name][1] if name in self._running else None

    def left(self) -> float | None:
        """Seconds until all runs are done. None while nothing is known."""
        known, here, longest = dict(self._seconds), 0.0, 0.0
        estimates: dict[str, list[float]] = {}
        for kind, began, share in self._running.values():
            if share >= ENOUGH and kind not in known:
                estimates.setdefault(kind, []).append((self._now() - began) / share)
        known = {**estimates, **known}
        if not known:
            return None if self._left or self._running else 0.0
        for kind, began, share in self._running.values():
            elapsed = self._now() - began
            by_speed = elapsed * (1 - share) / share if share >= ENOUGH else 0.0
            rest = max(by_speed, expected_seconds([kind], known) - elapsed if share < ENOUGH else 0.0)
            here, longest = here + rest, max(longest, rest)
        return max(longest, (here + expected_seconds(self._left, known)) / self._jobs)


def spell(seconds: float | None) -> str:
    """A time as text: `"about 40 s left"`, `"about 12 min left"`, `"about 3.5 h left"`."""
    if seconds is None:
        return "time left not known yet"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"
