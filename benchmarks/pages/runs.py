"""The stored runs, as the pages use them."""

from functools import cache
from pathlib import Path

from weightlora.train.result import Result

from ..results import Runs, by_seed, load_results, losses

QUALITY = Path(__file__).parents[1] / "quality"
STUDIES = ("", "ablations", "rivals", "headroom", "plus")


@cache
def runs_in(study: str = "") -> tuple[Result, ...]:
    """The runs of the main comparison, or of a study beside it."""
    return tuple(load_results(QUALITY / study)[0])


@cache
def pool() -> Runs:
    """All runs. Where two studies have the same label, the later study counts."""
    return by_seed(run for study in STUDIES for run in runs_in(study))


def losses_of(task: str, label: str) -> dict[int, float]:
    """Held-out loss by seed; empty if nothing is stored."""
    return losses(pool()[task, label])
