"""Update credit against random sets: the table and the picture."""

from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from ..figures.differences import draw_differences
from .costs import TASKS
from .runs import losses_of
from .tables import table

COLUMNS = {
    "random": "random sets from the start, at their tuned rate",
    "same-rate": "random sets from the start, at update credit's rate",
    "random-late": "random sets chosen after the same selection phase",
}
SAME_RATE = {"rotten-tomatoes": "random", "imdb": "random", "vader-tweets": "random-1e-3"}
"""Task -> the random sets from the start that ran at update credit's rate."""


def _of_chance(task: str, column: str) -> dict[int, float]:
    """Held-out loss of one kind of random sets by seed; empty if nothing is stored."""
    return losses_of(task, SAME_RATE.get(task, "") if column == "same-rate" else column)


def chance() -> str:
    """Update credit minus random sets: one row per task, and how often update credit is lower over all tasks."""
    rows = [["loss of update credit minus loss of", *COLUMNS.values()]]
    totals = dict.fromkeys(COLUMNS, (0, 0))
    for task in sorted(TASKS):
        own = losses_of(task, "weightlora")
        rows.append([task])
        for column in COLUMNS:
            reference = _of_chance(task, column)
            versus = paired(own, reference)
            if versus is None:
                rows[-1].append("")
                continue
            seeds = len(own.keys() & reference.keys())
            rows[-1].append(f"{difference(versus)} ({versus['wins']} of {seeds})")
            ties = sum(own[seed] == reference.get(seed) for seed in own)  # a sign test leaves them out
            totals[column] = (totals[column][0] + versus["wins"], totals[column][1] + seeds - ties)
    tests = [f"{wins} of {seeds} (p = {binomtest(wins, seeds or 1).pvalue:.3f})" for wins, seeds in totals.values()]
    return table([*rows, ["lower in loss, all tasks (two-sided sign test)", *tests]])


def draw_chance(path: Path) -> Path:
    """The same differences as a picture."""
    panels: dict[str, Any] = {}
    for task in sorted(TASKS):
        own, panels[task] = losses_of(task, "weightlora"), {}
        for column, words in COLUMNS.items():
            reference = _of_chance(task, column)
            differences = [own[seed] - reference[seed] for seed in sorted(own.keys() & reference.keys())]
            panels[task][words] = (paired(own, reference) or {}, differences)
    return draw_differences(panels, "held-out loss of update credit minus that of random sets", path)
