"""The picture of many choices: a grid of layers and module types, coloured by the share of seeds that kept each."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightlora.drawing.figures import new_figure, save
from weightlora.drawing.picture import DROPPED, draw_axes, measure_grid
from weightlora.layout import lay_out


def draw_shares(task: str, shares: Mapping[str, float], seeds: int, path: str | os.PathLike[str]) -> Path:
    """Draw the share of the seeds that kept each adapter.

    Args:
        task: Name in the title.
        shares: Name of each adapter -> 0 (never kept) to 1 (always kept).
        seeds: Number of seeds.
        path: Where the PNG is written.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Rectangle

    grid = lay_out(list(shares))
    cell, (width, height) = measure_grid(grid)
    figure = new_figure(max(width, 4.0), height)  # the title needs room
    axes = figure.add_subplot()
    scale: Any = ScalarMappable(cmap="YlGnBu")
    scale.set_clim(0, 1)
    draw_axes(axes, grid, cell)
    for (row, column), share in zip(grid.cells, shares.values(), strict=True):
        place = (column - 0.42, row - 0.42)
        axes.add_patch(Rectangle(place, 0.84, 0.84, facecolor=scale.to_rgba(share), **DROPPED))
    kept = round(sum(shares.values()))
    figure.suptitle(f"{task}: {kept} of {len(shares)} adapters kept", fontsize=11, parse_math=False)
    bar = figure.colorbar(scale, ax=axes, label=f"kept, share of {seeds} seeds", aspect=15, pad=0.02)
    bar.outline.set_visible(False)
    return save(figure, path)
