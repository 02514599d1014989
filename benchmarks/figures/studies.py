"""The pictures of the side studies: memory against adapters and rank, and alignment against what was kept."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightlora.report.figures import GREY, new_figure, write_whole
from weightlora.report.picture import DISCONNECTED, KEPT, draw_axes, draw_cells, lay_out, measure_grid

__all__ = ["draw_alignment", "draw_memory"]

PLACES = {"top": "nearest the output", "bottom": "nearest the input"}


def draw_memory(study: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draws the peak of a training step against the number of adapters, a line a rank, a panel an order.

    Args:
        study: The content of `memory.json`.
        path: Where the PNG is written, whole or not at all.
    """
    settings = study["settings"]
    orders, ranks = settings["orders"], sorted(settings["ranks"])
    figure = new_figure(0.9 + 3.6 * len(orders), 3.9)
    panels = figure.subplots(1, len(orders), sharey=True, squeeze=False)[0]
    colours = _shades(len(ranks))
    for axes, order in zip(panels, orders, strict=True):
        for rank, colour in zip(ranks, colours, strict=True):
            cases = [case for case in study["cases"] if order in case["orders"] and case["rank"] == rank]
            cases.sort(key=lambda case: case["adapters"])
            counts, peaks = ([case[key] for case in cases] for key in ("adapters", "peak_bytes"))
            axes.plot(counts, [peak / 1e6 for peak in peaks], "o-", color=colour, markersize=4, label=f"rank {rank}")
        axes.set_title(f"adapters {PLACES[order]}", fontsize=10)
        apart = [not i or count - counts[i - 1] > counts[-1] / 25 for i, count in enumerate(counts)]
        axes.set_xticks(counts, [str(count) if far else "" for count, far in zip(counts, apart, strict=True)])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("number of adapters", fontsize=10)
        axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    weights = min(case["model_bytes"] for case in study["cases"]) / 1e6
    for axes in panels:
        axes.axhline(weights, color=GREY, linestyle=(0, (1, 1.5)), linewidth=1.2)
    panels[0].text(max(counts), weights, "weights", color="#555555", fontsize=8, ha="right", va="top")
    panels[0].set_ylabel("peak of a training step, MB", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(ranks), frameon=False, fontsize=9)
    title = f"{study['model']}, {settings['batch_size']} x {settings['max_length']} tokens, {study['device']}"
    figure.suptitle(title, fontsize=11, parse_math=False)
    return write_whole(path, lambda unfinished: figure.savefig(unfinished, format="png", dpi=150))


def draw_alignment(study: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draws trace(G^T B A) as colours on the grid of layers and types, kept adapters framed; below, sorted.

    Args:
        study: The content of `alignment.json`.
        path: Where the PNG is written, whole or not at all.
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
    return write_whole(path, lambda unfinished: figure.savefig(unfinished, format="png", dpi=150))


def _shades(count: int) -> list[Any]:
    """Light to dark, the lightest still readable on white."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](0.15 + 0.8 * index / max(count - 1, 1)) for index in range(count)]


def _diverging(values: Sequence[float]) -> Any:
    """White at 0; blue where the update descends, red where it climbs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    most = max(map(abs, values)) or 1.0
    return ScalarMappable(Normalize(-most, most), "RdBu_r")


def _draw_sorted(axes: Any, adapters: Sequence[Mapping[str, Any]], scale: Any) -> None:
    """A bar an adapter with its standard error, the most negative first; kept ones framed and dotted."""
    ordered = sorted(adapters, key=lambda adapter: adapter["trace"])
    for place, adapter in enumerate(ordered):
        value = adapter["trace"]
        frame = KEPT | {"linewidth": 1.4} if adapter["kept"] else DISCONNECTED
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
        Patch(facecolor="white", label="disconnected", **DISCONNECTED),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
