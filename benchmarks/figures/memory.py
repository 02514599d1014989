"""The picture of the study of memory: the peak of a training step by number of adapters and rank."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightlora.drawing.figures import GREY, new_figure, save

PLACES = {"top": "nearest the output", "bottom": "nearest the input"}


def draw_memory(study: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw the peak of a training step over the number of adapters: one line per rank, one panel per order.

    Args:
        study: The content of `memory.json`.
        path: Where the PNG is written.
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
    return save(figure, path)


def _shades(count: int) -> list[Any]:
    """Colours from light to dark. The lightest is readable on white."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](0.15 + 0.8 * index / max(count - 1, 1)) for index in range(count)]
