"""Loss against the number of adapters: whether a handful of large adapters does what small ones on all modules do."""

from collections.abc import Iterable
from typing import Any

from weightlora.compare.statistics import excludes_zero, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from .points import LORA, Point, Points, absent, points_of_tasks

__all__ = ["COUNTS", "LINES", "PLAIN", "gather_sizes", "render_sizes_markdown"]

COUNTS = (1, 3, 5, 9, 18)
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
INTRODUCTION = (
    "MiniLM-L6 with 37 modules, 300 steps, five seeds. The K modules with the highest scores of the probe, at rank 8 "
    "and at rank 32, and K random modules, whatever their size. Losses are held-out losses minus that of LoRA of rank "
    "8 on all modules at the same seed, with 95 % intervals. How it is measured, and what is said, was written down "
    "before the runs (`benchmarks/quality/sizes/DECISION.md`)."
)


def gather_sizes(side: Iterable[Result], main: Iterable[Result]) -> Points:
    """The points of all methods; what a point costs is its number of adapters.

    Args:
        side: Runs with K adapters.
        main: Runs of the main comparison, which has the plain lists.
    """
    return points_of_tasks(side, main, _labels(), PLAIN, lambda run: run.adapters_after)


def render_sizes_markdown(sizes: Points) -> str:
    """The page: what can be said, and all points."""
    parts = ["# How many adapters, and how large", INTRODUCTION]
    for task, points in sizes.items():
        parts += [f"## {task}", _said(task, points), f"![loss against the number of adapters]({task}-sizes.png)"]
        parts += [_table(points)]
    return "\n\n".join(parts) + "\n"


def _labels() -> list[str]:
    return [*(line.format(count) for line in LINES for count in COUNTS), SHARE]


def _said(task: str, points: dict[str, Point]) -> str:
    if count := absent({task: points}, (*_labels(), *PLAIN)):
        return f"Nothing is said yet: {count} {'run is' if count == 1 else 'runs are'} missing."
    level = {line: [n for n in COUNTS if not _is_worse(points[line.format(n)])] for line in (SMALL, LARGE)}
    told = {line: f"{min(counts)} of {points[LORA].x:.0f}" if counts else "none" for line, counts in level.items()}
    better = [str(count) for count in COUNTS if _beats_random(points, count)]
    enough = [rank for line, rank in ((SMALL, "8"), (LARGE, "32")) if 1 in level[line]]
    return "\n".join(
        [
            "- The smallest number of adapters at which the probe's set is not significantly worse than LoRA on all "
            f"modules: {told[SMALL]} at rank 8, {told[LARGE]} at rank 32.",
            f"- The probe's set is significantly better than random modules (rank 8) with "
            f"{', '.join(better) or 'no number of'} adapters.",
            "- Nine adapters within 9/37 of the parameters, minus nine whatever their size: "
            f"{difference(paired(points[SHARE].differences, points[SMALL.format(9)].differences))}.",
            f"- One adapter is {'enough at rank ' + ' and '.join(enough) if enough else 'not enough'}.",
        ]
    )


def _is_worse(point: Point) -> bool:
    found: dict[str, Any] = point.loss
    return excludes_zero(found) and found["mean"] > 0


def _beats_random(points: dict[str, Point], count: int) -> bool:
    own, random = (points[line.format(count)].differences for line in (SMALL, RANDOM))
    return excludes_zero(found := paired(own, random)) and found is not None and found["mean"] < 0


def _table(points: dict[str, Point]) -> str:
    rows = [
        [words, *(difference(points[line.format(n)].loss) if line.format(n) in points else "" for n in COUNTS)]
        for line, words in LINES.items()
    ]
    plain = [
        f"{words} ({points[label].x:.0f}): {difference(points[label].loss)}"
        for label, words in PLAIN.items()
        if label in points and label != LORA
    ]
    return "\n\n".join([markdown_table(["adapters", *map(str, COUNTS)], rows), "; ".join(plain) + "."])
