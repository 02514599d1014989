"""The picture of the study of alignment: trace(G^T B A) of every adapter, and which adapters were kept."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightlora.drawing.figures import new_figure, save
from weightlora.drawing.picture import DROPPED, KEPT, draw_axes, draw_cells, measure_grid
from weightlora.layout import lay_out


def draw_alignment(study: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw trace(G^T B A) as colours on the grid of layers and module types, and as sorted bars below it.

    Adapters that were kept have a frame.

    Args:
        study: The content of `alignment.json`.
        path: Where the PNG is written.
    """
    adapters = [{**adapter, "score": adapter["trace"], "rank": 0} for adapter in study["adapters"]]
    grid = lay_out([adapter["name"] for adapter in adapters])
    cell, (width, height) = measure_grid(grid)
    figure = new_figure(max(width + 0.4, 6.4), height + 2.8)
    above, below = figure.subplots(2, 1, height_ratios=[height - 0.8, 2.4])
    scale = _diverging([adapter["trace"] for adapter in adapters])
    draw_axes(above, grid, cell)
    draw_cells(above, adapters, grid, scale, font_size=min(27 * cell, 10))
    bar = figure.colorbar(scale, ax=above, label="trace(GᵀBA)", aspect=15, pad=0.02)
    bar.outline.set_visible(False)
    bar.formatter.set_powerlimits((-2, 2))
    _draw_sorted(below, adapters, scale)
    _draw_heading(figure, study)
    return save(figure, path)


def _diverging(values: Sequence[float]) -> Any:
    """Colours: white at 0, blue where the update lowers the loss, red where it raises the loss."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    most = max(map(abs, values)) or 1.0
    return ScalarMappable(Normalize(-most, most), "RdBu_r")


def _draw_sorted(axes: Any, adapters: Sequence[Mapping[str, Any]], scale: Any) -> None:
    """One bar per adapter with its standard error, the most negative first. Kept adapters have a frame and a dot."""
    ordered = sorted(adapters, key=lambda adapter: adapter["trace"])
    for place, adapter in enumerate(ordered):
        value = adapter["trace"]
        frame = KEPT | {"linewidth": 1.4} if adapter["kept"] else DROPPED
        axes.bar(place, value, width=0.7, color=scale.to_rgba(value), **frame)
        axes.errorbar(place, value, adapter["standard_error"], color="#555555", linewidth=0.9)
    low, high = axes.get_ylim()
    marks = [place for place, adapter in enumerate(ordered) if adapter["kept"]]
    axes.plot(marks, [high + 0.08 * (high - low)] * len(marks), "o", color="black", markersize=4)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks([])
    axes.set_xlabel("adapters, in order of their trace", fontsize=10)
    axes.set_ylabel("trace(GᵀBA)", fontsize=10)
    axes.ticklabel_format(axis="y", scilimits=(-2, 2))
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_heading(figure: Any, study: Mapping[str, Any]) -> None:
    from matplotlib.patches import Patch

    kept, n = sum(adapter["kept"] for adapter in study["adapters"]), len(study["adapters"])
    figure.suptitle(
        f"{study['model']}\n{kept} of {n} adapters kept by {study['chosen_by']}\n"
        f"AUC of descent for being kept: {study['figures']['auc']:.2f} (0.5: no relation)",
        fontsize=11,
        parse_math=False,
    )
    handles = [
        Patch(facecolor="white", label="kept", **KEPT),
        Patch(facecolor="white", label="dropped", **DROPPED),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
