"""The picture of paired differences: one panel per task, one row per reference."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightlora.compare.statistics import excludes_zero
from weightlora.drawing.figures import ROW, draw_legend, draw_means, limits, new_figure, save, set_rows


def draw_differences(
    panels: Mapping[str, Mapping[str, tuple[Mapping[str, Any], Sequence[float]]]],
    what: str,
    path: str | os.PathLike[str],
) -> Path:
    """Draw paired differences: every seed, the mean and its 95 % interval.

    The mean is filled where the interval excludes 0. A row without differences stays empty.

    Args:
        panels: Task -> reference -> (`{"mean", "ci"}`, the difference at each seed); every task has all references.
        what: Title.
        path: Where the PNG is written.
    """
    references = list(next(iter(panels.values())))
    figure = new_figure(2.6 + 2.1 * len(panels), ROW * len(references) + 1.5)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (task, found) in zip(columns, panels.items(), strict=True):
        set_rows(axes, references)
        draw_means(axes, [(interval, values, excludes_zero(interval or None)) for interval, values in found.values()])
        axes.set_xlim(*limits([*axes.get_xlim(), 0]))
        axes.axvline(0, color="black", linewidth=1, zorder=0.5)
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(task, fontsize=10, parse_math=False)
    figure.suptitle(what, fontsize=10, parse_math=False)
    draw_legend(figure, "the interval excludes 0")
    return save(figure, path)
