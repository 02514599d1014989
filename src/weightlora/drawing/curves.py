"""Curves over the steps of a run: the scores of all modules, and what was logged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .figures import BLUE, GREY, new_figure

SIZE = (4.7, 3.0)  # inches: with text of 9 points it can be read on a phone
DASHES = (0, (4, 2))
LINE_ID = "module-{}"
"""The id of a module's line in an SVG; its number is the module's place in model order."""


@dataclass(frozen=True)
class Palette:
    """Colours of a figure, as matplotlib takes them.

    Attributes:
        ink: Text and axes.
        grid: Lines behind the curves.
        kept, dropped: Curves of the modules.
        decision: The vertical line of a decision.
        series: Curves of the log, one after another.
    """

    ink: str
    grid: str
    kept: str
    dropped: str
    decision: str
    series: tuple[str, ...]


# Okabe and Ito's colours, without the yellow, which is too light on white.
SERIES = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5b5b5b")
PAPER = Palette("black", "#e4e4e4", BLUE, GREY, "#D55E00", SERIES)


def scores_figure(
    steps: Sequence[int],
    scores: Sequence[Sequence[float]],
    kept: Sequence[bool],
    decisions: Sequence[int],
    label: str = "score",
    palette: Palette = PAPER,
) -> Any:
    """One curve per module, those of the kept modules on top, and a vertical line at each decision.

    Args:
        steps: The m steps at which scores are known.
        scores: Shape `(m, n)`: at each of them the score of each module.
        kept: Of each of the n modules.
        decisions: Steps of the decisions.
        label: What a score is.
        palette: The colours.
    """
    figure, axes = _new_axes(palette, label)
    marker = "o" if len(steps) == 1 else None
    for index in sorted(range(len(kept)), key=lambda index: kept[index]):
        colour, width, opacity = (palette.kept, 1.5, 1.0) if kept[index] else (palette.dropped, 0.8, 0.65)
        curve = [row[index] for row in scores]
        [line] = axes.plot(steps, curve, color=colour, linewidth=width, alpha=opacity, marker=marker, markersize=3)
        line.set_gid(LINE_ID.format(index))
    handles = [_handle(palette.kept, "kept")] if any(kept) else []
    handles += [] if all(kept) else [_handle(palette.dropped, "dropped")]
    _draw_legend(axes, [*handles, *_draw_decisions(axes, decisions, palette)], palette)
    return figure


def log_figure(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    decisions: Sequence[int],
    palette: Palette = PAPER,
) -> Any:
    """One curve per name, and a vertical line at each decision.

    Args:
        curves: Name -> pairs of a step and a value. Up to seven colours, then they repeat.
        decisions: Steps of the decisions.
        palette: The colours.
    """
    figure, axes = _new_axes(palette, "loss")
    handles = []
    for place, (name, points) in enumerate(curves.items()):
        colour = palette.series[place % len(palette.series)]
        marker = "o" if len(points) < 12 else None
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, marker=marker, markersize=3)
        handles.append(_handle(colour, name))
    _draw_legend(axes, [*handles, *_draw_decisions(axes, decisions, palette)], palette)
    return figure


def frontier_figure(
    points: Sequence[tuple[float, float, int]],
    chosen: tuple[float, float],
    budget: float,
    label: str,
    palette: Palette = PAPER,
) -> Any:
    """What each budget buys: the sum of the scores over the cost, with the choice and its budget.

    Args:
        points: Cost, part of the sum of all scores, and number of adapters, for each set of the frontier.
        chosen: The same two figures of the choice.
        budget: What its cost may be at most.
        label: Of the cost.
        palette: The colours.
    """
    figure, axes = _new_axes(palette, "part of all scores")
    axes.set_xlabel(label, color=palette.ink, fontsize=9)
    axes.locator_params("x", nbins=6, integer=False)
    costs, scores, counts = zip(*points, strict=True)
    axes.plot(costs, scores, color=palette.kept, linewidth=1.5, marker="o", markersize=3)
    for cost, score, count in zip(costs, scores, counts, strict=True):
        axes.annotate(str(count), (cost, score), (4, -9), textcoords="offset points", fontsize=8, color=palette.ink)
    axes.plot(*chosen, color=palette.decision, marker="o", markersize=7, fillstyle="none", linestyle="")
    axes.axvline(budget, color=palette.decision, linestyle=DASHES, linewidth=1.2)
    handles = [_handle(palette.kept, "best set, with its number of adapters")]
    handles += [_handle(palette.decision, "budget and choice", linestyle=DASHES)]
    _draw_legend(axes, handles, palette)
    return figure


def _new_axes(palette: Palette, label: str) -> tuple[Any, Any]:
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    axes.set_xlabel("step", color=palette.ink, fontsize=9)
    axes.set_ylabel(label, color=palette.ink, fontsize=9, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(colors=palette.ink, labelsize=9, length=0)
    axes.yaxis.get_offset_text().set(color=palette.ink, fontsize=9)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(palette.ink)
    return figure, axes


def _draw_decisions(axes: Any, decisions: Sequence[int], palette: Palette) -> list[Any]:
    """Draw a vertical line at each decision; returns the entry of the legend, if there is one."""
    for step in decisions:
        axes.axvline(step, color=palette.decision, linestyle=DASHES, linewidth=1.2, zorder=3)
    where = ", ".join(map(str, decisions)) if len(decisions) < 5 else f"{len(decisions)} steps"
    return [_handle(palette.decision, f"decision at {where}", DASHES)] if decisions else []


def _handle(colour: str, label: str, linestyle: Any = "-") -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=linestyle, linewidth=1.5, label=label)


def _draw_legend(axes: Any, handles: Sequence[Any], palette: Palette) -> None:
    columns = 3 if len(handles) <= 3 else 2
    legend = axes.figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, labelcolor=palette.ink
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
