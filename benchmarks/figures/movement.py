"""The picture of moving evidence: which layers gain the update credit while LoRA trains on all of them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weightlora.drawing.figures import new_figure, save

from ..depth import THIRDS

COLOURS = ("#225ea8", "#41b6c4", "#c7e9b4")


class Movement(NamedTuple):
    """Where the credit of one task goes.

    Attributes:
        edges: Steps, from 0. Two neighbours bound an interval. Shape `(intervals + 1,)`.
        shares: Share of the credit of an interval that the lower, middle and upper third of the layers gained. Shape
            `(3, intervals)`; each column adds up to 1.
        decides_at: T, the step at which update credit decides.
    """

    edges: Sequence[int]
    shares: np.ndarray
    decides_at: int


def draw_movement(movements: Mapping[str, Movement], path: str | os.PathLike[str]) -> Path:
    """Draw one panel per task: the share of the credit that each third of the layers gains, stacked, over the steps.

    Args:
        movements: Task -> its movement.
        path: Where the PNG is written.
    """
    figure = new_figure(0.8 + 2.3 * len(movements), 2.9)
    panels = figure.subplots(1, len(movements), sharey=True, squeeze=False)[0]
    for axes, (task, movement) in zip(panels, movements.items(), strict=True):
        bottom = np.zeros(movement.shares.shape[1])
        for part, colour, share in zip(THIRDS, COLOURS, movement.shares, strict=True):
            widths = np.diff(movement.edges)
            axes.bar(movement.edges[:-1], share, widths, bottom, align="edge", color=colour, label=part)
            bottom += share
        axes.axvline(movement.decides_at, color="black", linestyle="--", linewidth=1.2, label="update credit decides")
        axes.set_xlim(movement.edges[0], movement.edges[-1])
        axes.set_ylim(0, 1)
        axes.set_title(task, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of the update credit", fontsize=9)
    figure.supxlabel("optimizer step", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        [f"{label} third of the layers" if label in THIRDS else label for label in labels],
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
        fontsize=9,
    )
    return save(figure, path)
