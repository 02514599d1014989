"""The picture of runs that do not learn: a dot for each run, for a mean would be where no run is."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from weightlora.drawing.figures import BLUE, ORANGE, ROW, new_figure, save, set_rows


def draw_outcomes(
    rows: Mapping[str, Sequence[float]], learned: float, what: str, path: str | os.PathLike[str]
) -> Path:
    """Draw one row per method and one dot per run, in another colour where the run did not learn.

    Args:
        rows: Method -> the value of each run; at least one.
        learned: The value below which a run did not learn: a dashed line.
        what: What stands below.
        path: Where the PNG is written.
    """
    figure = new_figure(7.5, ROW * len(rows) + 1.1)
    axes = figure.subplots()
    counts = [sum(value < learned for value in values) for values in rows.values()]
    set_rows(axes, [f"{name}: {count} of {len(rows[name])}" for name, count in zip(rows, counts, strict=True)])
    for row, values in enumerate(rows.values()):
        for value in values:
            colour = ORANGE if value < learned else BLUE
            axes.plot(value, row, "o", color=colour, alpha=0.45, markersize=6, markeredgewidth=0)
    axes.axvline(learned, color="black", linestyle="--", linewidth=1, zorder=0.5)
    figure.supxlabel(what, fontsize=9)
    return save(figure, path)
