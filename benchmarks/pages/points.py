"""What side comparisons share: the tasks whose runs are all there, and losses minus that of LoRA on all modules."""

from collections.abc import Callable, Collection, Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from weightlora.compare.statistics import interval
from weightlora.train.result import Result

from ..decision import LORA
from ..results import Runs, losses

SEEDS = range(5)


class Point(NamedTuple):
    """A method on a task.

    Attributes:
        x: What its sets cost, the mean over seeds.
        differences: Seed -> its held-out loss, minus that of LoRA on all modules.
    """

    x: float
    differences: Mapping[int, float]

    @property
    def loss(self) -> dict[str, float | None]:
        """The mean of the differences, and the half-width of its 95 % interval."""
        return interval([*self.differences.values()])


Points = dict[str, dict[str, Point]]
"""Task -> label -> its point."""


def complete_tasks(
    runs: Runs, tasks: Iterable[str], labels: Iterable[str], seeds: Collection[int] = SEEDS
) -> list[str]:
    """The tasks that have a run of each label at each seed: a page is about these only."""
    wanted = [*labels]
    return [task for task in tasks if all(runs[task, label].keys() >= {*seeds} for label in wanted)]


def missing(tasks: Iterable[str], complete: Collection[str]) -> list[str]:
    """A sentence that names the tasks that are not complete, if there are any."""
    absent = [task for task in tasks if task not in complete]
    return [f"Runs are missing of {', '.join(absent)}."] if absent else []


def points_of(
    runs: Runs, task: str, labels: Iterable[str], cost: Callable[[Result], float], seeds: Collection[int] = SEEDS
) -> dict[str, Point]:
    """The points of a complete task, by label; `cost` is what the set of a run costs."""
    lora, points = losses(runs[task, LORA]), {}
    for label in labels:
        own = {seed: runs[task, label][seed] for seed in seeds}
        differences = {seed: run.held_out_loss - lora[seed] for seed, run in own.items()}
        points[label] = Point(fmean(map(cost, own.values())), differences)
    return points
