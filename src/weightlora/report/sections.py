"""What the page's template shows of one run: plain values and finished text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing.curves import LINE_ID, Palette
from ..drawing.figures import readable_on
from ..drawing.picture import bound_in_words
from ..drawing.svg import inline_svg
from ..selection.formats import notes_beside
from ..summary import by_kind
from ..wording import are, counted
from .costs import Cost, amount
from .gather import ModuleRow, RunReport
from .pictures import figures_of

LEVELS = 24
"""Shades of the grid."""
NOTHING = " none"
"""In place of a shade where there is nothing to show."""

# Each colour stands for a variable of the page's style sheet.
VARIABLES = {
    "#010203": "var(--ink)",
    "#010204": "var(--line)",
    "#010205": "var(--kept)",
    "#010206": "var(--dropped)",
    "#010207": "var(--decision)",
    **{f"#01030{place}": f"var(--c{place})" for place in range(7)},
}
PAGE = Palette("#010203", "#010204", "#010205", "#010206", "#010207", tuple(f"#01030{place}" for place in range(7)))


LONGEST_LEAD = 300


def describe_run(run: RunReport, identifier: str) -> dict[str, Any]:
    """The values of the template's `run`.

    Args:
        run: The run.
        identifier: Begins each id of its part of the page.
    """
    return {
        "id": identifier,
        "name": run.name,
        "final": run.final,
        "lead": lead(run),
        "facts": _facts(run),
        "costs": [format_cost(cost) for cost in run.costs],
        "metrics": _metrics(run.outcome),
        "map": _map(run, identifier),
        "charts": _charts(run, identifier),
        "snippets": [(tool, text, notes_beside(run.selection, tool)) for tool, text in run.snippets.items()],
        "score_label": run.score_label,
        "seeds": run.selection.seeds is not None,
        "modules": [(module, _line(index, identifier)) for index, module in enumerate(run.modules)],
        "settings": [
            (name, "none" if value is None else as_text(value), changed)
            for name, (value, changed) in run.settings.items()
        ],
        "versions": [(name, value, False) for name, value in {**run.versions, **run.machine}.items()],
    }


def lead(run: RunReport) -> str:
    """What the run chose, in one or two sentences."""
    kept = [module.name for module in run.modules if module.kept]
    if not run.final:
        of = "" if run.steps is None else f" of {run.steps:,}"
        trained = f"{len(kept)} of {len(run.modules)} modules {are(len(kept))} trained."
        return f"The selection is at step {run.step:,}{of}. {trained}"
    kinds = by_kind(kept, [module.name for module in run.modules])
    if len(kinds) > LONGEST_LEAD:
        counts = Counter(run.rows[module.row] for module in run.modules if module.kept)
        kinds = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
    return f"{len(kept)} of {len(run.modules)} modules {are(len(kept))} kept: {kinds}."


def _facts(run: RunReport) -> list[tuple[str, str]]:
    selection = run.selection
    facts = [("Model", selection.model or ""), ("Rule", selection.rule)]
    if run.final:
        facts.append(("Decided", f"after {run.step:,} steps" if run.step else "before the first step"))
        ranks = sorted({module.rank for module in run.modules if module.kept and module.rank is not None})
        facts.append(("Rank", ", ".join(map(str, ranks))))
        facts.append(("Budget", run.selection.cost_in_words()))
    return [(name, value) for name, value in facts if value]


def format_cost(cost: Cost) -> dict[str, str | None]:
    """A line of the costs as text, and its change in percent."""
    change = None
    if cost.before and cost.after is not None:
        change = f"{cost.after / cost.before - 1:+.0%}".replace("-", "\u2212")
    before, after = (amount(value, cost.unit) for value in (cost.before, cost.after))
    return {"name": cost.name, "before": before, "after": after, "change": change}


def _metrics(outcome: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    names = list(dict.fromkeys(name for values in outcome.values() for name in values))
    lines = [
        (split, [f"{values[name]:.4g}" if name in values else "" for name in names])
        for split, values in outcome.items()
    ]
    return {"header": [name.replace("_", " ") for name in names], "lines": lines} if names else None


def _map(run: RunReport, identifier: str) -> dict[str, Any]:
    scores = [module.score for module in run.modules if module.score is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    ranks = {module.rank for module in run.modules if module.kept}
    cells = []
    for index, module in enumerate(run.modules):
        classes = " kept" * (module.kept and run.final) + " bounded" * module.bounded
        mark = (str(module.rank) if module.rank else "\u25cf") if module.kept and run.final else ""
        cells.append(
            {
                "level": level_of(module.score, low, high),
                "classes": classes,
                "mark": mark,
                "text": _describe(module, run),
                "line": _line(index, identifier),
            }
        )
    legend = []
    if run.final:
        rank = next(iter(ranks)) if len(ranks) == 1 else None
        text = f"kept, rank {rank}" if rank else "kept, with its rank"
        legend.append({"classes": "kept", "mark": rank or "r", "text": text})
        legend.append({"classes": "dropped", "mark": "", "text": "dropped"})
    if any(module.bounded for module in run.modules):
        text = f"dropped by {bound_in_words(run.selection.config)}, in spite of its score"
        legend.append({"classes": "bounded", "mark": "", "text": text})
    return {
        "id": f"{identifier}-map",
        "label": "Modules by type and layer",
        "columns": run.columns,
        "rows": place_cells(run.rows, run.columns, [(m.row, m.column) for m in run.modules], cells),
        "levels": range(LEVELS),
        "scale": f"{run.score_label}, {low:.3g} to {high:.3g}" if high > low else None,
        "legend": legend,
    }


def place_cells(
    rows: Sequence[str], columns: Sequence[str], places: Sequence[tuple[int, int]], cells: Sequence[Any]
) -> list[dict[str, Any]]:
    """Rows of the grid, with None where there is no module."""
    grid: list[list[Any]] = [[None] * len(columns) for _ in rows]
    for (row, column), cell in zip(places, cells, strict=True):
        grid[row][column] = cell
    return [{"label": label, "cells": line} for label, line in zip(rows, grid, strict=True)]


def level_of(value: float | None, low: float, high: float) -> int | str:
    """The shade of a value, from 0 to `LEVELS - 1`; `NOTHING` if there is nothing to compare."""
    if value is None or high <= low:
        return NOTHING
    return min(LEVELS - 1, int((value - low) / (high - low) * LEVELS))


def level_colours(level: int) -> list[tuple[str, str]]:
    """The colour of a shade and of text on it, on a light page and on a dark one, where high scores are bright."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    place = level / (LEVELS - 1)
    colours = [to_hex(colormaps["YlGnBu"](value)) for value in (place, 0.95 - 0.8 * place)]
    return [(colour, readable_on(colour)) for colour in colours]


def _describe(module: ModuleRow, run: RunReport) -> str:
    score = "" if module.score is None else f" {run.score_label.capitalize()} {module.score:.4g}."
    rank = f" Rank {module.rank}." if module.kept and module.rank else ""
    seeds = "" if module.seeds is None else f" Chosen at {counted(module.seeds, 'seed')}."
    why = f" {module.why}" if run.final else ""
    return f"{module.name}.{why}{score}{rank}{seeds} {module.parameters:,} parameters at the start."


def _charts(run: RunReport, identifier: str) -> list[dict[str, Any]]:
    read, recorded, figures = len(run.history.steps), run.history.recorded, figures_of(run, PAGE)
    thinned = f"{read:,} of {recorded:,} steps are drawn, evenly spaced." if read < recorded else ""
    titles = {
        "scores": (f"{run.score_label.capitalize()} of each module", thinned),
        "frontier": ("What each budget buys", ""),
        "loss": ("Loss", ""),
    }
    return [
        draw_chart(figures[name](), title, f"{identifier}-{name}", note)
        for name, (title, note) in titles.items()
        if name in figures
    ]


def draw_chart(figure: Any, title: str, name: str, note: str = "") -> dict[str, Any]:
    """A figure with the page's colours, for the template."""
    from markupsafe import Markup

    return {"title": title, "note": note, "svg": Markup(inline_svg(figure, title, name, VARIABLES))}


def _line(index: int, identifier: str) -> str:
    return f"{identifier}-scores-{LINE_ID.format(index)}"


def as_text(value: Any) -> str:
    """A value as text; nothing for None."""
    return "" if value is None else str(value)
