"""The pictures of a benchmark: what each method's held-out loss is, and where it stands among random subsets."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_comparison", "draw_headroom", "new_figure", "write_whole"]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8c8c8c"  # Okabe and Ito: told apart by colour-blind readers
REFERENCES = {"lora": (ORANGE, (0, (5, 2))), "random": ("black", (0, (1, 1.5)))}
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind text, so that no line runs through it
ROW = 0.3  # inches


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
    _set_rows(losses, names)
    _draw_losses(losses, [methods[name] for name in names], list(seeds.values()))
    _draw_references(losses, methods)
    _draw_parameters(parameters, [methods[name]["trainable_parameters"] for name in names])
    figure.suptitle(task, fontsize=12, parse_math=False)
    _draw_legend(figure)
    return _save(figure, path)


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
    low, high = _limits([*losses, *(entry["loss"] for entry in methods.values())])
    distribution.set_xlim(min(low, *losses), max(high, *losses))  # the distribution is always whole
    _draw_distribution(distribution, losses)
    _draw_standings(standing, names, [methods[name] for name in names])
    _draw_quantiles(distribution, losses)
    handles = [*_draw_quantiles(standing, losses), _mean_marker("a method's mean over seeds", BLUE)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"{task}: {len(losses)} random subsets", fontsize=12, parse_math=False)
    return _save(figure, path)


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Calls `write` with a path beside `path` and moves what it wrote there, so that nobody reads half a file."""
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def new_figure(width: float, height: float) -> Any:
    """An empty figure on Agg, its size in inches, without touching pyplot or its backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | os.PathLike[str]) -> Path:
    return write_whole(path, lambda unfinished: figure.savefig(unfinished, format="png", dpi=150))


def _set_rows(axes: Any, names: Sequence[str]) -> None:
    """One row a name, the first on top, with a hairline through each."""
    axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    _strip(axes)


def _strip(axes: Any) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_losses(axes: Any, entries: Sequence[Mapping[str, Any]], seeds: Sequence[Sequence[float]]) -> None:
    means = [entry["loss"]["mean"] for entry in entries]
    low, high = _limits([*means, *(loss for losses in seeds for loss in losses)])
    axes.set_xlim(low, high)
    axes.set_xlabel("held-out loss (lower is better)", fontsize=10)
    for row, (entry, losses) in enumerate(zip(entries, seeds, strict=True)):
        mean, ci = entry["loss"]["mean"], entry["loss"]["ci"]
        _draw_seeds(axes, row - 0.24, losses)
        if ci is not None:
            axes.plot([mean - ci, mean + ci], [row, row], color=BLUE, linewidth=1.6, solid_capstyle="butt")
        _draw_mean(axes, row, mean, BLUE if _differs(entry.get("vs_random")) else "white")


def _draw_seeds(axes: Any, height: float, losses: Sequence[float]) -> None:
    """A faint dot a loss, or a faint arrow head at the edge where one lies outside the axes."""
    low, high = axes.get_xlim()
    for loss in losses:
        marker = "<" if loss < low else ">" if loss > high else "o"
        place = min(max(loss, low), high)
        axes.plot(
            place, height, marker, color=BLUE, alpha=0.35, markersize=4, markeredgewidth=0, clip_on=False, zorder=4
        )


def _draw_mean(axes: Any, row: int, mean: float, fill: str) -> None:
    """A diamond, or at the edge its value with an arrow where it lies outside the axes."""
    low, high = axes.get_xlim()
    if low <= mean <= high:
        axes.plot(mean, row, "D", color=BLUE, markerfacecolor=fill, markersize=6, markeredgewidth=1.4)
    elif mean > high:
        axes.text(high, row, f"{mean:.3f} \u25b6", ha="right", va="center", fontsize=8, color=BLUE, bbox=PLAIN)
    else:
        axes.text(low, row, f"\u25c0 {mean:.3f}", ha="left", va="center", fontsize=8, color=BLUE, bbox=PLAIN)


def _differs(versus: Mapping[str, Any] | None) -> bool:
    """Whether the interval of a paired difference excludes 0."""
    return versus is not None and versus["ci"] is not None and abs(versus["mean"]) > versus["ci"]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds the values and a margin, but not those that would squeeze all others together.

    These lie beyond the middle 80 % of the values by more than once its width.
    """
    import numpy as np

    lower, upper = np.quantile(values, [0.1, 0.9])
    fence = upper - lower
    inside = [value for value in values if lower - fence <= value <= upper + fence]
    low, high = min(inside), max(inside)
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    return low - margin, high + margin


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
    _strip(axes)


def _short(count: int) -> str:
    """`82944` as `82.9k`: three digits."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="", places=None if count < 1000 else 1)(count)


def _draw_legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=BLUE, marker="o", alpha=0.35, linestyle="", markersize=4, label="one seed"),
        _mean_marker("mean, 95 % interval", "white", linewidth=1.6),
        _mean_marker("differs from random (paired by seed, 95 %)", BLUE, linewidth=1.6),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _mean_marker(label: str, fill: str, linewidth: float = 0.0) -> Any:
    """The legend's entry for a mean."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=BLUE, marker="D", markersize=6, markerfacecolor=fill, linewidth=linewidth, label=label)


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
    _strip(axes)


def _draw_standings(axes: Any, names: Sequence[str], entries: Sequence[Mapping[str, float]]) -> None:
    _set_rows(axes, names)
    right = axes.get_yaxis_transform()
    for row, entry in enumerate(entries):
        _draw_mean(axes, row, entry["loss"], BLUE)
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
