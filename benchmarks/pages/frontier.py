"""Loss against step time: what a budget of time costs in quality, and whether a choice within it is worth having."""

from collections.abc import Iterable, Mapping
from functools import partial
from statistics import fmean
from typing import Any

from weightlora.compare.statistics import excludes_zero, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from ..methods.within import read_prices
from ..results import by_seed
from .points import LORA, SEEDS, Point, Points, complete_tasks, missing, points_of

TASKS = ("film-reviews", "rotten-tomatoes-all", "vader-tweets-all")
SHARES = (50, 60, 75, 90)
"""Budgets, in hundredths of the step time of LoRA on all modules."""
WAYS = {
    "within": "the probe's best set",
    "random": "random, with the same lowest module",
    "nearest": "the modules nearest to the output",
}
PLAIN = {
    LORA: "LoRA on all modules",
    "peft-default": "PEFT's default list",
    "widening": "the widening layers",
    "probe": "the default",
}
MEAN = "mean of the tasks"
BUDGETS = {f"{way}-{share}": f"{words}, budget {share / 100:g}" for share in SHARES for way, words in WAYS.items()}
"""Label of a way to fill a budget -> what it is."""


def gather_frontier(side: Iterable[Result], main: Iterable[Result], prices: str) -> Points:
    """The points of all methods on the complete tasks; once all tasks are complete, also their mean.

    What a point costs is the step time of its sets, in parts of LoRA on all modules, by the stored prices.

    Args:
        side: Runs within budgets.
        main: Runs of the main comparison, which has the plain lists.
        prices: The file of prices.

    Raises:
        DataError: The prices are missing, or those of other modules.
    """
    runs, labels = by_seed((*main, *side)), [*PLAIN, *BUDGETS]
    tasks = complete_tasks(runs, TASKS, labels)
    points = {task: points_of(runs, task, labels, partial(_step_time, prices=prices)) for task in tasks}
    if len(tasks) == len(TASKS):
        points[MEAN] = {label: _mean([of_task[label] for of_task in points.values()]) for label in labels}
    return points


def _step_time(run: Result, prices: str) -> float:
    assert run.names is not None and run.kept is not None
    costs = read_prices(prices, run.names)
    return costs.predict([name in run.kept for name in run.names]) / costs.whole


def _mean(points: list[Point]) -> Point:
    """The mean over tasks at each seed."""
    differences = {seed: fmean(point.differences[seed] for point in points) for seed in SEEDS}
    return Point(fmean(point.x for point in points), differences)


def render_frontier_markdown(frontier: Points) -> str:
    """The page: what can be said by the rule of `quality/frontier/DECISION.md`, all points, and the comparisons."""
    parts = ["# Loss against step time", INTRODUCTION, *missing(TASKS, frontier)]
    if MEAN in frontier:
        parts.append(_said(frontier[MEAN]))
    if frontier:
        parts += ["![loss against step time](frontier.png)", _points(frontier), _comparisons(frontier)]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = (
    "MiniLM-L6, three tasks, five seeds. A budget is a fraction of the step time of LoRA on all modules. The probe's "
    "best set within it is compared with random modules that have the same lowest module, with the modules nearest to "
    "the output, and with fixed lists. The default has a budget of parameters instead, a quarter. The tables have the "
    "held-out loss minus the loss of LoRA on all modules at the same seed, with 95 % intervals. The step times are "
    "predictions from the measured costs of each module at rank 8, by which the sets were chosen. The plan was "
    "written down before the runs, and one departure from it after them (`benchmarks/quality/frontier/DECISION.md`)."
)


def _said(mean: Mapping[str, Point]) -> str:
    versus = {share: _versus(mean, share, "nearest") for share in SHARES}
    told = {share: found for share, found in versus.items() if found is not None and excludes_zero(found)}
    better, worse = ([share for share in told if (told[share]["mean"] < 0) is lower] for lower in (True, False))
    even = [share for share in SHARES if share not in told]
    if worse:
        words = f"**The modules nearest to the output do better** at {_in_words(worse)}."
    elif better:
        words = (
            f"**By the rule of the plan, the choice is worth it** at {_in_words(better)}: it is significantly better "
            "than the modules nearest to the output there, and significantly worse at no budget."
        )
        words += f" At {_in_words(even)}, the difference is not significant." if even else ""
    else:
        words = "**The modules nearest to the output do as well** at every budget."
    losses = [(share, mean[f"within-{share}"].loss) for share in SHARES]
    costs = ", ".join(f"{difference(loss).rstrip(' ▲▼')} at {share / 100:g}" for share, loss in losses)
    return f"{words} Against LoRA on all modules, the loss of the choice is {costs}."


def _in_words(shares: list[int]) -> str:
    *others, last = (f"{share / 100:g}" for share in shares)
    return f"{', '.join(others)}{' and ' if others else ''}{last} of the step time"


def _versus(points: Mapping[str, Point], share: int, way: str) -> dict[str, Any] | None:
    """The probe's best set minus another way to fill the same budget."""
    own, other = (points[f"{name}-{share}"].differences for name in ("within", way))
    return paired(own, other)


def _points(frontier: Points) -> str:
    rows = []
    for label, words in (PLAIN | BUDGETS).items():
        points = [of_task[label] for of_task in frontier.values()]
        step = fmean(point.x for point in points)
        rows.append([words, f"{step:.2f}", *(difference(point.loss) for point in points)])
    return markdown_table(["", "step time", *frontier], rows)


def _comparisons(frontier: Points) -> str:
    rows = [
        [BUDGETS[f"{way}-{share}"], *(difference(_versus(of_task, share, way)) for of_task in frontier.values())]
        for share in SHARES
        for way in ("random", "nearest")
    ]
    return markdown_table(["the probe's best set minus", *frontier], rows)
