"""The picture of a selection: a grid of layers and module types, with scores as colours and kept adapters framed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..layout import Grid, lay_out
from ..rules import RULES
from .figures import new_figure, readable_on

UNSCORED = "#e0e0e0"
KEPT: dict[str, Any] = {"edgecolor": "black", "linewidth": 2.2}
DROPPED: dict[str, Any] = {"edgecolor": "#b0b0b0", "linewidth": 0.6}

BOUNDED: dict[str, Any] = {"edgecolor": "#D55E00", "facecolor": "none", "linewidth": 1.6, "linestyle": (0, (2, 1))}


def score_label(rule: str | None) -> str:
    """What the score of a rule is, for a picture or a table; `"score"` for a rule that is not known here."""
    return RULES[rule].score_label if isinstance(rule, str) and rule in RULES else "score"


def bound_in_words(config: Mapping[str, Any]) -> str:
    """What keeps modules out in spite of their scores, by the settings of a selection."""
    for name in ("step_time", "memory"):
        if config.get(f"keep_{name}") is not None:
            return f"the budget of {name.replace('_', ' ')}"
    return "the bound on parameters"


def selection_figure(selection: dict[str, Any], bounded: Collection[str] = ()) -> Any:
    """The picture of the content of a `selection.json`, as a matplotlib figure.

    Args:
        selection: The content.
        bounded: Names of adapters that a bound or a budget kept out, in spite of their scores. They are marked.
    """
    adapters = selection["adapters"]
    grid = lay_out([adapter["name"] for adapter in adapters])
    cell, size = measure_grid(grid)
    figure = new_figure(*size)
    axes = figure.add_subplot()
    scale = _colour_scale([adapter["score"] for adapter in adapters])
    draw_axes(axes, grid, cell)
    draw_cells(axes, adapters, grid, scale, font_size=min(27 * cell, 10))
    _mark_bounded(axes, adapters, grid, bounded)
    _draw_texts(figure, selection, bool(bounded))
    if scale is not None:
        label = score_label(selection.get("config", {}).get("selection"))
        bar = figure.colorbar(scale, ax=axes, label=label, aspect=15, pad=0.02)
        bar.outline.set_visible(False)
    return figure


def _colour_scale(scores: Sequence[float | None]) -> Any:
    """A colour map over the range of the scores, dark for large ones. None if they are all equal."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = {score for score in scores if score is not None}
    return ScalarMappable(Normalize(min(known), max(known)), "YlGnBu") if len(known) > 1 else None


def measure_grid(grid: Grid) -> tuple[float, tuple[float, float]]:
    """The side of a cell, and the width and height of a figure with a colour bar, in inches."""
    cell = min(max(10 / len(grid.columns), 0.2), 0.55)
    labels = 0.09 * max(len(label) for label in grid.rows)
    return cell, (cell * len(grid.columns) + labels + 1.4, cell * len(grid.rows) + 1.4)


def draw_axes(axes: Any, grid: Grid, cell: float) -> None:
    tick_every = 1 if cell > 0.25 else 5
    axes.set_xlim(-0.5, len(grid.columns) - 0.5)
    axes.set_ylim(len(grid.rows) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xticks(range(0, len(grid.columns), tick_every), grid.columns[::tick_every], fontsize=9)
    axes.set_yticks(range(len(grid.rows)), grid.rows, fontsize=9, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("layer")


def draw_cells(axes: Any, adapters: Sequence[dict[str, Any]], grid: Grid, scale: Any, font_size: float) -> None:
    """One square per adapter. A kept one is larger, and has a frame and its rank, or a dot if all ranks are equal."""
    from matplotlib.patches import Rectangle

    same_rank = len(_kept_ranks(adapters)) <= 1
    for adapter, (row, column) in zip(adapters, grid.cells, strict=True):
        colour = _colour(adapter["score"], scale)
        side, frame = (0.84, KEPT) if adapter["kept"] else (0.7, DROPPED)
        axes.add_patch(Rectangle((column - side / 2, row - side / 2), side, side, facecolor=colour, **frame))
        if adapter["kept"]:
            mark = "\u25cf" if same_rank else str(adapter["rank"])
            ink = readable_on(colour)
            axes.text(column, row, mark, ha="center", va="center_baseline", fontsize=font_size, color=ink)


def _mark_bounded(axes: Any, adapters: Sequence[dict[str, Any]], grid: Grid, bounded: Collection[str]) -> None:
    from matplotlib.patches import Rectangle

    for adapter, (row, column) in zip(adapters, grid.cells, strict=True):
        if adapter["name"] in bounded:
            axes.add_patch(Rectangle((column - 0.35, row - 0.35), 0.7, 0.7, **BOUNDED))


def _kept_ranks(adapters: Sequence[dict[str, Any]]) -> list[int]:
    return sorted({adapter["rank"] for adapter in adapters if adapter["kept"]})


def _colour(score: float | None, scale: Any) -> Any:
    return UNSCORED if scale is None or score is None else scale.to_rgba(score)


def _state(selection: dict[str, Any]) -> str:
    """What adapters are that were not dropped: before the choice, they are not kept yet."""
    return "kept" if selection.get("phase", "train") == "train" else "trained"


def _draw_texts(figure: Any, selection: dict[str, Any], bounded: bool) -> None:
    from matplotlib.patches import Patch

    adapters, parameters = selection["adapters"], selection["trainable_parameters"]
    kept, state = sum(adapter["kept"] for adapter in adapters), _state(selection)
    figure.suptitle(
        f"{kept} of {len(adapters)} LoRA adapters {state}\n"
        f"adapter parameters {parameters['before']:,} \u2192 {parameters['after']:,}",
        fontsize=11,
    )
    ranks = _kept_ranks(adapters)
    kept_label = f"{state}, rank {ranks[0]}" if len(ranks) == 1 else f"{state}, with its rank"
    handles = [
        Patch(facecolor="white", label=kept_label, **KEPT),
        Patch(facecolor="white", label="dropped", **DROPPED),
    ]
    if bounded:
        bound = bound_in_words(selection.get("config", {}))
        handles.append(Patch(label=f"kept out by {bound}", **BOUNDED))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
