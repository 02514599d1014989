"""Loss against step time: what a budget of time costs in quality, and whether a choice within it is worth having."""

from collections.abc import Iterable
from functools import partial
from statistics import fmean
from typing import Any

from weightlora.compare.statistics import excludes_zero, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from ..methods.within import read_prices
from .points import LORA, SEEDS, Differences, Point, Points, absent, points_of_tasks

__all__ = ["MEAN", "PLAIN", "SHARES", "TASKS", "WAYS", "Frontier", "gather_frontier", "render_frontier_markdown"]

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
Frontier = Points
"""What a point costs is the step time of its sets, in parts of LoRA on all modules, by the stored prices. Once all
tasks have runs, the last one is their mean."""


def gather_frontier(side: Iterable[Result], main: Iterable[Result], prices: str) -> Frontier:
    """The points of all methods.

    Args:
        side: Runs within budgets.
        main: Runs of the main comparison, which has the plain lists.
        prices: The file of prices.

    Raises:
        DataError: The prices are missing, or those of other modules.
    """
    found = points_of_tasks(side, main, _labels(), PLAIN, partial(_step_time, prices=prices))
    return found | ({MEAN: _mean(found)} if found.keys() == set(TASKS) else {})


def _labels() -> list[str]:
    return [f"{way}-{share}" for share in SHARES for way in WAYS]


def _step_time(run: Result, prices: str) -> float:
    assert run.names is not None and run.kept is not None
    costs = read_prices(prices, run.names)
    return costs.predict([name in run.kept for name in run.names]) / costs.whole


def _mean(found: Frontier) -> dict[str, Point]:
    """The mean over tasks at each seed that all tasks have."""
    points = {}
    for label in (*PLAIN, *_labels()):
        of_tasks = [points_of[label] for points_of in found.values() if label in points_of]
        seeds = [seed for seed in SEEDS if all(seed in point.differences for point in of_tasks)]
        if len(of_tasks) == len(found) and seeds:
            differences = {seed: fmean(point.differences[seed] for point in of_tasks) for seed in seeds}
            points[label] = Point(fmean(point.x for point in of_tasks), differences)
    return points


def render_frontier_markdown(frontier: Frontier) -> str:
    """The page: what can be said by the rule of `quality/frontier/DECISION.md`, all points, and the comparisons."""
    parts = ["# Loss against step time", INTRODUCTION, _said(frontier), "![loss against step time](frontier.png)"]
    parts += [_points(frontier), _comparisons(frontier)]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = (
    "MiniLM-L6, three tasks, five seeds. A budget is a fraction of the step time of LoRA on all modules. The probe's "
    "best set within it is compared with random modules that have the same lowest module, with the modules nearest to "
    "the output, and with fixed lists. The default has a budget of parameters instead, a quarter. The tables have the "
    "held-out loss minus the loss of LoRA on all modules at the same seed, with 95 % intervals. The step times are "
    "predictions from the measured costs of each module at rank 8, by which the sets were chosen. The plan was "
    "written down before the runs, and one departure from it after them (`benchmarks/quality/frontier/DECISION.md`)."
)


def _said(frontier: Frontier) -> str:
    tasks = {task: points for task, points in frontier.items() if task != MEAN}
    later: Frontier = {task: {} for task in TASKS if task not in tasks}
    if count := absent(tasks, (*_labels(), *PLAIN)) + absent(later, _labels()):
        return f"Nothing is said yet: {count} {'run is' if count == 1 else 'runs are'} missing."
    versus = {share: _versus(frontier, MEAN, share, "nearest") for share in SHARES}
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
    losses = [(share, frontier[MEAN][f"within-{share}"].loss) for share in SHARES]
    costs = ", ".join(f"{difference(loss).rstrip(' ▲▼')} at {share / 100:g}" for share, loss in losses)
    return f"{words} Against LoRA on all modules, the loss of the choice is {costs}."


def _in_words(shares: list[int]) -> str:
    *others, last = (f"{share / 100:g}" for share in shares)
    return f"{', '.join(others)}{' and ' if others else ''}{last} of the step time"


def _differences_of(frontier: Frontier, task: str, label: str) -> Differences:
    point = frontier[task].get(label)
    return {} if point is None else point.differences


def _versus(frontier: Frontier, task: str, share: int, way: str) -> dict[str, Any] | None:
    """The probe's best set minus another way to fill the same budget."""
    own, other = (_differences_of(frontier, task, f"{name}-{share}") for name in ("within", way))
    return paired(own, other)


def _points(frontier: Frontier) -> str:
    filled = {f"{way}-{share}": f"{WAYS[way]}, budget {share / 100:g}" for share in SHARES for way in WAYS}
    names, rows = PLAIN | filled, []
    for label, words in names.items():
        points = [frontier[task].get(label) for task in frontier]
        if any(points):
            step = fmean(point.x for point in points if point is not None)
            cells = ["" if point is None else difference(point.loss) for point in points]
            rows.append([words, f"{step:.2f}", *cells])
    return markdown_table(["", "step time", *frontier], rows)


def _comparisons(frontier: Frontier) -> str:
    rows = [
        [f"{WAYS[way]}, budget {share / 100:g}", *(difference(_versus(frontier, t, share, way)) for t in frontier)]
        for share in SHARES
        for way in ("random", "nearest")
    ]
    return markdown_table(["the probe's best set minus", *frontier], rows)
