"""The picture of loss against what a set of adapters costs: one panel per task, one line per way to choose."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightlora.drawing.figures import BLUE, GREY, ORANGE, limits, new_figure, save

from ..pages.points import Point

LINES = ((BLUE, "o", "-"), (ORANGE, "s", (0, (5, 2))), ("black", "^", (0, (1, 1.5))))
MARKS = ("*", "P", "X", "D")


def draw_lines(
    panels: Mapping[str, tuple[Mapping[str, Sequence[Point]], Mapping[str, Point]]],
    path: str | os.PathLike[str],
    cost: str,
    ticks: Sequence[int] = (),
) -> Path:
    """Draw the loss against a cost.

    Args:
        panels: Title -> the lines (name -> their points) and the single points (name -> where).
        path: Where the PNG is written.
        cost: What x is.
        ticks: Values of x that are labelled, on a logarithmic axis. Without them, the axis is linear.
    """
    figure = new_figure(max(2.9 * len(panels) + 0.8, 6.6), 3.9)
    handles: dict[str, Any] = {}
    for axes, (title, (lines, points)) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for (name, several), (colour, marker, style) in zip(lines.items(), LINES, strict=False):
            handles[name] = _draw_line(axes, several, colour, marker, style)
        for (name, point), marker in zip(points.items(), MARKS, strict=False):
            [handles[name]] = axes.plot(
                point.x, point.loss["mean"], marker, color=GREY, markersize=9, markeredgewidth=0, zorder=3
            )
        axes.axhline(0, color="#c9c9c9", linewidth=1, zorder=0.5)
        axes.set_ylim(*limits([0, *(end for end in _ends(lines, points))]))
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_xlabel(cost, fontsize=9)
        if ticks:
            axes.set_xscale("log")
            axes.set_xticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
            axes.set_xticks([], minor=True)
            axes.set_xlim(0.8 * ticks[0], 1.25 * ticks[-1])
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("held-out loss minus that\nof LoRA on all modules", fontsize=9)
    figure.legend(
        handles=[*handles.values()],
        labels=[*handles],
        loc="outside lower center",
        ncols=3 if len(panels) > 2 else 2,
        frameon=False,
        fontsize=9,
    )
    return save(figure, path)


def _draw_line(axes: Any, points: Sequence[Point], colour: str, marker: str, style: Any) -> Any:
    found = sorted((point.x, point.loss["mean"], point.loss["ci"] or 0.0) for point in points)
    x, y, error = zip(*found, strict=True)
    return axes.errorbar(
        x, y, yerr=error, color=colour, marker=marker, linestyle=style, markersize=5, linewidth=1.4, capsize=2
    )


def _ends(lines: Mapping[str, Sequence[Point]], points: Mapping[str, Point]) -> list[float]:
    losses: list[Any] = [point.loss for several in (*lines.values(), points.values()) for point in several]
    return [loss["mean"] + sign * (loss["ci"] or 0.0) for loss in losses for sign in (-1, 1)]
