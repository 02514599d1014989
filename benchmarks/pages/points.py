"""Losses of a side comparison, minus that of LoRA on all modules at the same seed."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from weightlora.compare.statistics import interval
from weightlora.train.result import Result

__all__ = ["LORA", "SEEDS", "Differences", "Point", "Points", "absent", "points_of_tasks"]

LORA = "lora"
SEEDS = range(5)
Differences = Mapping[int, float]
"""Seed -> held-out loss minus that of LoRA on all modules."""


class Point(NamedTuple):
    """A method on a task.

    Attributes:
        x: What its sets cost, the mean over seeds.
        differences: Its loss at each seed, minus that of LoRA on all modules.
    """

    x: float
    differences: Differences

    @property
    def loss(self) -> dict[str, float | None]:
        """The mean of the differences, and the half-width of its 95 % interval."""
        return interval([*self.differences.values()])


Points = dict[str, dict[str, Point]]
"""Task -> label -> its point. Empty without runs of the side comparison."""


def points_of_tasks(
    side: Iterable[Result],
    main: Iterable[Result],
    labels: Collection[str],
    plain: Collection[str],
    cost: Callable[[Result], float],
) -> Points:
    """The points of all methods, on the tasks of the side comparison.

    Args:
        side: Runs of the side comparison; those with one of the labels count.
        main: Runs of the main comparison, which has LoRA on all modules; those with a label in `plain` count.
        labels: Of the side comparison.
        plain: Of the main comparison.
        cost: What a run's set costs.
    """
    own = [run for run in side if run.label in labels]
    tasks = sorted({run.task for run in own})
    runs: defaultdict[tuple[str, str], dict[int, Result]] = defaultdict(dict)
    for run in (*own, *(run for run in main if run.task in tasks and run.label in plain)):
        if run.seed in SEEDS:
            runs[run.task, run.label][run.seed] = run
    return {
        task: {
            label: Point(fmean(cost(run) for run in several.values()), differences)
            for (of_task, label), several in runs.items()
            if of_task == task and (differences := _differences(several, runs[task, LORA]))
        }
        for task in tasks
    }


def absent(points: Points, labels: Iterable[str], seeds: int = len(SEEDS)) -> int:
    """How many runs with these labels are missing, of one at each of the first seeds."""
    names = list(labels)
    there = [of_task[label] for of_task in points.values() for label in names if label in of_task]
    return len(points) * len(names) * seeds - sum(len(point.differences) for point in there)


def _differences(runs: Mapping[int, Result], lora: Mapping[int, Result]) -> Differences:
    return {seed: runs[seed].held_out_loss - lora[seed].held_out_loss for seed in sorted(runs.keys() & lora.keys())}
