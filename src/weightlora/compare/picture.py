"""The picture of a comparison: the held-out loss of each method, and its adapter parameters."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..drawing.figures import (
    GREY,
    ORANGE,
    PLAIN,
    ROW,
    draw_legend,
    draw_means,
    new_figure,
    save,
    set_rows,
    strip_axes,
)
from .statistics import excludes_zero, key_of

LINES = {"lora": (ORANGE, (0, (5, 2))), "random": ("black", (0, (1, 1.5)))}


def draw_comparison(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    losses: Mapping[str, Sequence[float]],
    path: str | os.PathLike[str],
) -> Path:
    """Draw the held-out loss and the adapter parameters of each method, one row per method, the best on top.

    Left: every seed as a faint dot, the mean and its 95 % interval. The mean is filled where the interval of the
    paired difference from `random` excludes 0; from `lora`, where no method is `random`. A value far outside the
    others becomes an arrow at the edge.
    Right: adapter parameters (all trainable ones but the task head) on a logarithmic axis.

    Args:
        title: The title.
        rows: Label -> its entry in `statistics.summarize`; at least one.
        losses: Label -> the held-out loss of each seed.
        path: Where the PNG is written.
    """
    names = sorted(rows, key=lambda name: rows[name]["loss"]["mean"])
    figure = new_figure(9.5, ROW * len(names) + 1.9)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    set_rows(left, names)
    base = "lora" if "random" not in rows and "lora" in rows else "random"
    found = [(rows[name]["loss"], losses.get(name, ()), excludes_zero(rows[name].get(key_of(base)))) for name in names]
    draw_means(left, found)
    left.set_xlabel("held-out loss (lower is better)", fontsize=10)
    _draw_references(left, rows)
    _draw_parameters(right, [rows[name]["trainable_parameters"] for name in names])
    figure.suptitle(title, fontsize=12, parse_math=False)
    draw_legend(figure, f"differs from {base} (paired by seed, 95 %)" if base in rows else None)
    return save(figure, path)


def _draw_references(axes: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A vertical line at the mean of each reference, its name on top, outwards where there are two."""
    found = sorted((rows[name]["loss"]["mean"], name) for name in LINES if name in rows)
    low, high = axes.get_xlim()
    for place, (mean, name) in enumerate(found):
        if not low <= mean <= high:
            continue
        colour, dashes = LINES[name]
        axes.axvline(mean, color=colour, linestyle=dashes, linewidth=1.2, zorder=0.5)
        side = "center" if len(found) == 1 else ("right", "left")[place]
        height = axes.get_xaxis_transform()
        axes.text(mean, 1.01, f" {name} ", color=colour, fontsize=9, ha=side, va="bottom", transform=height)


def _draw_parameters(axes: Any, counts: Sequence[int]) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter

    smallest, largest = min(filter(None, counts), default=1), max(*counts, 1)
    axes.set_xscale("log")
    axes.set_xlim(smallest / 1.5, largest * 12)  # room for the numbers
    axes.plot(counts, range(len(counts)), "s", color=GREY, markersize=5)
    for row, count in enumerate(counts):
        axes.annotate(
            _short(count),
            (max(count, axes.get_xlim()[0]), row),
            xytext=(6, 0),
            fontsize=8,
            va="center",
            textcoords="offset points",
            bbox=PLAIN,
        )
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("adapter parameters", fontsize=10)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    strip_axes(axes)


def _short(count: int) -> str:
    """`82944` as `82.9k`: three digits."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="", places=None if count < 1000 else 1)(count)
