"""The picture of headroom: the losses of random subsets, and where methods stand among them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightlora.drawing.figures import (
    BLUE,
    GREY,
    ROW,
    draw_mean,
    limits,
    mean_marker,
    new_figure,
    save,
    set_rows,
    strip_axes,
)


def draw_headroom(
    task: str,
    losses: Sequence[float],
    methods: Mapping[str, Mapping[str, float]],
    path: str | os.PathLike[str],
) -> Path:
    """Draw the losses of random subsets as a histogram, and the position of each method among them below it.

    Args:
        task: Title.
        losses: Held-out losses of the runs with a random subset.
        methods: Label -> `{"loss": mean held-out loss, "percentile": 0 to 100}`, as `place_methods` returns it.
        path: Where the PNG is written.
    """
    names = sorted(methods, key=lambda name: methods[name]["loss"])
    rows = max(len(names), 1)
    figure = new_figure(7.5, ROW * rows + 3.2)
    distribution, standing = figure.subplots(2, 1, sharex=True, height_ratios=[2, ROW * rows])
    low, high = limits([*losses, *(entry["loss"] for entry in methods.values())])
    distribution.set_xlim(min(low, *losses), max(high, *losses))  # the distribution is always whole
    _draw_distribution(distribution, losses)
    _draw_standings(standing, names, [methods[name] for name in names])
    _draw_quantiles(distribution, losses)
    handles = [*_draw_quantiles(standing, losses), mean_marker("a method's mean over seeds", BLUE)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"{task}: {len(losses)} random subsets", fontsize=12, parse_math=False)
    return save(figure, path)


def _draw_distribution(axes: Any, losses: Sequence[float]) -> None:
    if len(set(losses)) > 1:
        axes.hist(losses, bins="auto", color="#c9c9c9", edgecolor="white")
    axes.plot(
        losses,
        [-0.04] * len(losses),
        "|",
        color=GREY,
        markersize=7,
        clip_on=False,
        transform=axes.get_xaxis_transform(),
    )
    axes.set_ylabel("random subsets", fontsize=10)
    axes.yaxis.get_major_locator().set_params(integer=True)
    strip_axes(axes)


def _draw_standings(axes: Any, names: Sequence[str], entries: Sequence[Mapping[str, float]]) -> None:
    set_rows(axes, names)
    right = axes.get_yaxis_transform()
    for row, entry in enumerate(entries):
        draw_mean(axes, row, entry["loss"], BLUE)
        axes.text(1.02, row, f"{entry['percentile']:.0f} %", fontsize=9, va="center", transform=right)
    axes.text(1.02, -0.75, "better\nsubsets", fontsize=8, color="#555555", va="bottom", transform=right)
    axes.set_xlabel("held-out loss (lower is better)", fontsize=10)


def _draw_quantiles(axes: Any, losses: Sequence[float]) -> list[Any]:
    """The middle 90 % of the losses as a band, the median as a line."""
    import numpy as np

    low, median, high = np.quantile(losses, [0.05, 0.5, 0.95])
    band = axes.axvspan(low, high, color="#f0f0f0", zorder=0, label="middle 90 % of the random subsets")
    line = axes.axvline(
        median, color="black", linestyle=(0, (1, 1.5)), linewidth=1.2, zorder=0.5, label="their median"
    )
    return [band, line]
