"""The pictures of a benchmark: what each method's held-out loss is, and where it stands among random subsets."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weightlora.report.figures import (
    BLUE,
    GREY,
    ORANGE,
    PLAIN,
    ROW,
    differs,
    draw_legend,
    draw_mean,
    draw_means,
    limits,
    mean_marker,
    new_figure,
    save,
    set_rows,
    strip_axes,
)

__all__ = ["draw_comparison", "draw_differences", "draw_headroom"]

REFERENCES = {"lora": (ORANGE, (0, (5, 2))), "random": ("black", (0, (1, 1.5)))}


def draw_comparison(
    task: str,
    methods: Mapping[str, Mapping[str, Any]],
    results: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
) -> Path:
    """Draws the held-out loss and the trainable parameters of each method, one row a method, best on top.

    Left: every seed as a faint dot, the mean and its 95 % interval; the mean is filled where the interval of the
    paired difference from `random` excludes 0. What lies far outside the others becomes an arrow at the edge.
    Right: trainable parameters on a logarithmic axis.

    Args:
        task: the title; results of other tasks are left out.
        methods: method -> its entry in the summary.
        results: results as they were loaded.
        path: where the PNG is written, whole or not at all.

    Raises:
        ValueError: there are no methods.
    """
    if not methods:
        raise ValueError(f"no methods of {task} to draw")
    names = sorted(methods, key=lambda name: methods[name]["loss"]["mean"])
    seeds: dict[str, list[float]] = {name: [] for name in names}
    for result in results:
        if result["task"] == task and result["method"] in seeds:
            seeds[result["method"]].append(result["loss"])
    figure = new_figure(9.5, ROW * len(names) + 1.9)
    losses, parameters = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    set_rows(losses, names)
    rows = [(methods[name]["loss"], seeds[name], differs(methods[name].get("vs_random"))) for name in names]
    draw_means(losses, rows)
    losses.set_xlabel("held-out loss (lower is better)", fontsize=10)
    _draw_references(losses, methods)
    _draw_parameters(parameters, [methods[name]["trainable_parameters"] for name in names])
    figure.suptitle(task, fontsize=12, parse_math=False)
    draw_legend(figure, "differs from random (paired by seed, 95 %)")
    return save(figure, path)


def draw_differences(
    panels: Mapping[str, Mapping[str, tuple[Mapping[str, Any], Sequence[float]]]],
    what: str,
    path: str | os.PathLike[str],
) -> Path:
    """Draws paired differences, a panel a task and a row a reference: every seed, the mean and its 95 % interval.

    The mean is filled where the interval excludes 0. A row without differences stays empty.

    Args:
        panels: task -> reference -> (`{"mean", "ci"}`, the difference at each seed); every task has all references.
        what: what the differences are of: the title.
        path: where the PNG is written, whole or not at all.

    Raises:
        ValueError: there are no panels.
    """
    if not panels:
        raise ValueError("no differences to draw")
    references = list(next(iter(panels.values())))
    figure = new_figure(2.6 + 2.1 * len(panels), ROW * len(references) + 1.5)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (task, found) in zip(columns, panels.items(), strict=True):
        set_rows(axes, references)
        draw_means(axes, [(interval, values, differs(interval or None)) for interval, values in found.values()])
        axes.set_xlim(*limits([*axes.get_xlim(), 0]))
        axes.axvline(0, color="black", linewidth=1, zorder=0.5)
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(task, fontsize=10, parse_math=False)
    figure.suptitle(what, fontsize=10, parse_math=False)
    draw_legend(figure, "the interval excludes 0")
    return save(figure, path)


def draw_headroom(
    task: str,
    losses: Sequence[float],
    methods: Mapping[str, Mapping[str, float]],
    path: str | os.PathLike[str],
) -> Path:
    """Draws the losses of random subsets as a histogram, and below it where each method stands among them.

    Args:
        task: the title.
        losses: held-out losses of the runs with a random subset.
        methods: method -> `{"loss": mean held-out loss, "percentile": 0 to 100}`, as `place_methods` has it.
        path: where the PNG is written, whole or not at all.

    Raises:
        ValueError: there are no losses.
    """
    if not losses:
        raise ValueError(f"no random subsets of {task} to draw")
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


def _draw_references(axes: Any, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """A vertical line at the mean of each reference, its name on top, outwards where there are two."""
    found = sorted((methods[name]["loss"]["mean"], name) for name in REFERENCES if name in methods)
    low, high = axes.get_xlim()
    for place, (mean, name) in enumerate(found):
        if not low <= mean <= high:
            continue
        colour, dashes = REFERENCES[name]
        axes.axvline(mean, color=colour, linestyle=dashes, linewidth=1.2, zorder=0.5)
        side = "center" if len(found) == 1 else ("right", "left")[place]
        height = axes.get_xaxis_transform()
        axes.text(mean, 1.01, f" {name} ", color=colour, fontsize=9, ha=side, va="bottom", transform=height)


def _draw_parameters(axes: Any, counts: Sequence[int]) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter

    smallest, largest = min(filter(None, counts), default=1), max(*counts, 1)
    axes.set_xscale("log")
    axes.set_xlim(smallest / 1.5, largest * 12)  # room for the numbers
    axes.plot(counts, range(len(counts)), "s", color=GREY, markersize=5)
    for row, count in enumerate(counts):
        axes.annotate(
            _short(count),
            (max(count, axes.get_xlim()[0]), row),
            xytext=(6, 0),
            fontsize=8,
            va="center",
            textcoords="offset points",
            bbox=PLAIN,
        )
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("trainable parameters", fontsize=10)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    strip_axes(axes)


def _short(count: int) -> str:
    """`82944` as `82.9k`: three digits."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="", places=None if count < 1000 else 1)(count)


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
