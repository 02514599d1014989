"""Parts of pictures: rows with seeds, means and intervals."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..extras import require
from ..files import write

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8c8c8c"  # Okabe and Ito: also for colour-blind readers
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind text, so that no line runs through it
ROW = 0.3  # inches


def new_figure(width: float, height: float) -> Any:
    """An empty figure on Agg with its size in inches. pyplot and its backend are not used.

    Raises:
        MissingPackageError: If matplotlib is not installed.
    """
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | os.PathLike[str]) -> Path:
    return write(path, lambda partial: figure.savefig(partial, format="png", dpi=150))


def encode(figure: Any, kind: str) -> bytes:
    """The figure as a file, `"png"` or `"svg"`, with a narrow margin. Two drawings of one thing are the same file."""
    from matplotlib import rc_context

    file = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with rc_context({"svg.hashsalt": "weightlora"}):
        figure.savefig(file, format=kind, dpi=150, bbox_inches="tight", pad_inches=0.15, metadata=metadata)
    return file.getvalue()


def pixels(figure: Any) -> Any:
    """The figure as an array of bytes, shape `(height, width, 3)`, at 150 dots per inch."""
    from matplotlib.image import imread

    return (imread(io.BytesIO(encode(figure, "png")))[:, :, :3] * 255).round().astype("uint8")


def readable_on(colour: Any) -> str:
    """Black or white, whichever has more contrast with a colour of matplotlib."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, colour))


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of two colours of matplotlib by WCAG 2, from 1 to 21."""
    brighter, darker = sorted(map(_luminance, (one, other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: Any) -> float:
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def set_rows(axes: Any, names: Sequence[str]) -> None:
    """One row per name, the first on top, with a thin line through each."""
    axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    strip_axes(axes)


def strip_axes(axes: Any) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_means(axes: Any, rows: Sequence[tuple[Mapping[str, Any], Sequence[float], bool]]) -> None:
    """Draw rows with the value of every seed, their mean and their interval.

    Args:
        axes: The axes.
        rows: `{"mean", "ci"}`, the value of each seed, and whether the mean is filled. An empty mapping leaves the row
            empty.
    """
    means = [interval["mean"] for interval, _, _ in rows if interval]
    axes.set_xlim(*limits([*means, *(value for _, values, _ in rows for value in values)]))
    for row, (interval, values, filled) in enumerate(rows):
        if not interval:
            continue
        mean, ci = interval["mean"], interval["ci"]
        _draw_seeds(axes, row - 0.24, values)
        if ci is not None:
            axes.plot([mean - ci, mean + ci], [row, row], color=BLUE, linewidth=1.6, solid_capstyle="butt")
            _draw_cut_ends(axes, row, mean - ci, mean + ci)
        draw_mean(axes, row, mean, BLUE if filled else "white")


def _draw_cut_ends(axes: Any, row: int, start: float, end: float) -> None:
    """An arrow head where an interval goes on outside the axes."""
    low, high = axes.get_xlim()
    for outside, place, marker in ((start < low, low, "<"), (end > high, high, ">")):
        if outside and low <= max(start, low) <= min(end, high) <= high:
            axes.plot(place, row, marker, color=BLUE, markersize=6, markeredgewidth=0, clip_on=False, zorder=4)


def _draw_seeds(axes: Any, height: float, losses: Sequence[float]) -> None:
    """A faint dot per loss, or a faint arrow head at the edge for a loss outside the axes."""
    low, high = axes.get_xlim()
    for loss in losses:
        marker = "<" if loss < low else ">" if loss > high else "o"
        place = min(max(loss, low), high)
        axes.plot(
            place, height, marker, color=BLUE, alpha=0.35, markersize=4, markeredgewidth=0, clip_on=False, zorder=4
        )


def draw_mean(axes: Any, row: int, mean: float, fill: str) -> None:
    """A diamond, or the value and an arrow at the edge if it is outside the axes."""
    low, high = axes.get_xlim()
    if low <= mean <= high:
        axes.plot(mean, row, "D", color=BLUE, markerfacecolor=fill, markersize=6, markeredgewidth=1.4)
    elif mean > high:
        axes.text(high, row, f"{mean:.3f} \u25b6", ha="right", va="center", fontsize=8, color=BLUE, bbox=PLAIN)
    else:
        axes.text(low, row, f"\u25c0 {mean:.3f}", ha="left", va="center", fontsize=8, color=BLUE, bbox=PLAIN)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """A range with the values and a margin, without values that would squeeze all others together.

    Such a value is further from the middle 80 % of the values than that is wide.
    """
    import numpy as np

    lower, upper = np.quantile(values, [0.1, 0.9])
    fence = upper - lower
    inside = [value for value in values if lower - fence <= value <= upper + fence]
    low, high = min(inside), max(inside)
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    return low - margin, high + margin


def draw_legend(figure: Any, filled: str | None) -> None:
    """What the marks mean. `filled`: what a filled mean says; None if nothing is filled."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=BLUE, marker="o", alpha=0.35, linestyle="", markersize=4, label="one seed"),
        mean_marker("mean, 95 % interval", "white", linewidth=1.6),
        *([] if filled is None else [mean_marker(filled, BLUE, linewidth=1.6)]),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def mean_marker(label: str, fill: str, linewidth: float = 0.0) -> Any:
    """The legend's entry for a mean."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=BLUE, marker="D", markersize=6, markerfacecolor=fill, linewidth=linewidth, label=label)
