"""Loss against the number of adapters: whether a handful of large adapters does what small ones on all modules do."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from weightlora.compare.statistics import excludes_zero, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from ..results import by_seed
from .points import LORA, Point, Points, complete_tasks, missing, points_of

LINES = {
    "probe-{}-rank-8": "the probe, rank 8",
    "probe-{}-rank-32": "the probe, rank 32",
    "random-{}-rank-8": "random, rank 8",
}
"""Label of a number of adapters -> what it is."""
PLAIN = {
    LORA: "LoRA on all modules",
    "lora-equal": "a lower rank on all modules",
    "peft-default": "PEFT's default list",
    "widening": "the widening layers",
}
SMALL, LARGE, RANDOM = LINES
SHARE = "probe-9-share"
"""Nine within 9/37 of the parameters."""


class Plan(NamedTuple):
    """What runs on a task.

    Attributes:
        setting: The model, the steps and the seeds, in words.
        counts: Numbers of adapters.
        seeds: Number of seeds.
        others: Labels without a line of their own.
        plain: Labels of the main comparison.
    """

    setting: str
    counts: tuple[int, ...]
    seeds: int
    others: tuple[str, ...]
    plain: tuple[str, ...]

    @property
    def labels(self) -> list[str]:
        """All labels."""
        return [*self.plain, *(line.format(count) for line in LINES for count in self.counts), *self.others]


PLANS = {
    "rotten-tomatoes-all": Plan(
        "MiniLM-L6 with 37 modules, 300 steps, five seeds.", (1, 3, 5, 9, 18), 5, (SHARE,), tuple(PLAIN)
    ),
    "smollm2-imdb-lm-float32": Plan(
        "SmolLM2-135M with 210 modules, 75 steps, three seeds.", (4, 10, 42), 3, (), (LORA, "peft-default")
    ),
}
"""Task -> what runs on it, by `quality/sizes/DECISION.md`."""
INTRODUCTION = (
    "The K modules with the highest scores of the probe, at rank 8 and at rank 32, and K random modules, whatever "
    "their size. The tables have the held-out loss minus the loss of LoRA of rank 8 on all modules at the same seed, "
    "with 95 % intervals. The plan was written down before the runs (`benchmarks/quality/sizes/DECISION.md`)."
)


def gather_sizes(side: Iterable[Result], main: Iterable[Result]) -> Points:
    """The points of all methods on the complete tasks; what a point costs is its number of adapters.

    Args:
        side: Runs with K adapters.
        main: Runs of the main comparison, which has the plain lists.
    """
    runs = by_seed((*main, *side))
    return {
        task: points_of(runs, task, plan.labels, lambda run: run.adapters_after, range(plan.seeds))
        for task, plan in PLANS.items()
        if complete_tasks(runs, [task], plan.labels, range(plan.seeds))
    }


def render_sizes_markdown(sizes: Points) -> str:
    """The page: what can be said, and all points."""
    parts = ["# How many adapters, and how large", INTRODUCTION, *missing(PLANS, sizes)]
    for task, points in sizes.items():
        plan = PLANS[task]
        parts += [f"## {task}", plan.setting, _said(points, plan)]
        parts += [f"![loss against the number of adapters]({task}-sizes.png)", _table(points, plan)]
    return "\n\n".join(parts) + "\n"


def _said(points: dict[str, Point], plan: Plan) -> str:
    level = {line: [n for n in plan.counts if not _is_worse(points[line.format(n)])] for line in (SMALL, LARGE)}
    told = {line: f"{min(counts)} of {points[LORA].x:.0f}" if counts else "none" for line, counts in level.items()}
    better = [str(count) for count in plan.counts if _beats_random(points, count)]
    said = [
        "- The smallest number of adapters at which the probe's set is not significantly worse than LoRA on all "
        f"modules: {told[SMALL]} at rank 8, {told[LARGE]} at rank 32.",
        f"- The probe's set is significantly better than random modules (rank 8) with "
        f"{', '.join(better) or 'no number of'} adapters.",
    ]
    if SHARE in plan.others:
        share = paired(points[SHARE].differences, points[SMALL.format(9)].differences)
        said += [f"- Nine adapters within 9/37 of the parameters, minus nine of any size: {difference(share)}."]
    if 1 in plan.counts:
        enough = [rank for line, rank in ((SMALL, "8"), (LARGE, "32")) if 1 in level[line]]
        said += [f"- One adapter is {'enough at rank ' + ' and '.join(enough) if enough else 'not enough'}."]
    return "\n".join(said)


def _is_worse(point: Point) -> bool:
    found: dict[str, Any] = point.loss
    return excludes_zero(found) and found["mean"] > 0


def _beats_random(points: dict[str, Point], count: int) -> bool:
    own, random = (points[line.format(count)].differences for line in (SMALL, RANDOM))
    return excludes_zero(found := paired(own, random)) and found is not None and found["mean"] < 0


def _table(points: dict[str, Point], plan: Plan) -> str:
    rows = [
        [words, *(difference(points[line.format(count)].loss) for count in plan.counts)]
        for line, words in LINES.items()
    ]
    plain = [
        f"{PLAIN[label]} ({points[label].x:.0f}): {difference(points[label].loss)}"
        for label in plan.plain
        if label != LORA
    ]
    return "\n\n".join([markdown_table(["adapters", *map(str, plan.counts)], rows), "; ".join(plain) + "."])
