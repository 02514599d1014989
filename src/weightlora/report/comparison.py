"""What the page's template shows of several runs side by side."""

from collections.abc import Sequence
from typing import Any

from ..drawing.curves import log_figure
from ..layout import lay_out
from ..run import FUSED
from ..selection.record import Selection
from .costs import Cost, amount
from .gather import RunReport
from .sections import LEVELS, NOTHING, PAGE, as_text, draw_chart, level_of, place_cells


def compare_runs(runs: Sequence[RunReport], identifiers: Sequence[str]) -> dict[str, Any]:
    """The values of the template's `comparison`.

    Args:
        runs: At least two.
        identifiers: Where each run is on the page.
    """
    names = list(dict.fromkeys(module.name for run in runs for module in run.modules))
    chosen = [{module.name for module in run.modules if module.kept} for run in runs]
    counts = [sum(name in kept for kept in chosen) for name in names]
    return {
        "lead": _lead(runs, counts),
        **_overview(runs, identifiers),
        "map": _map(runs, names, counts),
        "charts": _charts(runs),
        "differences": _differences(runs),
    }


def _lead(runs: Sequence[RunReport], counts: Sequence[int]) -> str:
    everywhere, somewhere = sum(count == len(runs) for count in counts), sum(count > 0 for count in counts)
    waiting = [run.name for run in runs if not run.final]
    undecided = ""
    if waiting:
        has = "has" if len(waiting) == 1 else "have"
        undecided = f" {', '.join(waiting)} {has} not decided yet: the modules that are trained count as kept."
    return (
        f"Of {len(counts)} modules, {everywhere} {'is' if everywhere == 1 else 'are'} kept in all {len(runs)} runs, "
        f"and {somewhere} in at least one of them.{undecided}"
    )


def _overview(runs: Sequence[RunReport], identifiers: Sequence[str]) -> dict[str, Any]:
    """The table of the runs, with the costs and results that at least one of them has."""
    costs = list(dict.fromkeys(cost.name for run in runs for cost in run.costs))
    metrics = list(
        dict.fromkeys((split, name) for run in runs for split, found in run.outcome.items() for name in found)
    )
    lines = []
    for run, identifier in zip(runs, identifiers, strict=True):
        known = {cost.name: cost for cost in run.costs}
        cells = [{"value": run.selection.rule, "text": run.selection.rule}]
        cells += [_cost_cell(known.get(name)) for name in costs]
        for split, name in metrics:
            result = run.outcome.get(split, {}).get(name)
            cells.append({"value": as_text(result), "text": "" if result is None else f"{result:.4g}"})
        lines.append({"id": identifier, "name": run.name, "cells": cells})
    header = ["run", "rule", *costs, *(f"{split} {name.replace('_', ' ')}" for split, name in metrics)]
    return {"header": header, "lines": lines}


def _cost_cell(cost: Cost | None) -> dict[str, str]:
    """What is paid after the choice, or else before it."""
    if cost is None:
        return {"value": "", "text": ""}
    if cost.after is None:
        return {"value": str(cost.before), "text": f"{amount(cost.before, cost.unit)} before"}
    return {"value": str(cost.after), "text": amount(cost.after, cost.unit) or ""}


def _map(runs: Sequence[RunReport], names: Sequence[str], counts: Sequence[int]) -> dict[str, Any]:
    """The grid of all modules; the shade is the number of runs that keep a module."""
    grid = lay_out(names)
    cells = [
        {
            "level": level_of(count, 0, len(runs)) if count else NOTHING,
            "classes": " kept" * (count == len(runs)),
            "mark": str(count) if count else "",
            "text": f"{name}. Kept in {count} of {len(runs)} runs{_which(runs, name, count)}.",
            "line": None,
        }
        for name, count in zip(names, counts, strict=True)
    ]
    return {
        "id": "agreement-map",
        "label": "Modules by type and layer, with the number of runs that keep each",
        "columns": grid.columns,
        "rows": place_cells(grid.rows, grid.columns, grid.cells, cells),
        "levels": range(LEVELS),
        "scale": f"kept in 1 to {len(runs)} runs",
        "legend": [{"classes": "kept", "mark": len(runs), "text": "kept in all of them"}],
    }


def _which(runs: Sequence[RunReport], name: str, count: int) -> str:
    if count in (0, len(runs)):
        return ""
    return ": " + ", ".join(run.name for run in runs if any(m.name == name and m.kept for m in run.modules))


def _charts(runs: Sequence[RunReport]) -> list[dict[str, Any]]:
    charts = []
    for kind in ("training", "evaluation"):
        curves = {run.name: run.losses()[kind] for run in runs if kind in run.losses()}
        if curves:
            title = f"{kind.capitalize()} loss"
            charts.append(draw_chart(log_figure(curves, [], palette=PAGE), title, f"compared-{kind}"))
    return charts


def _adapters_of(selection: Selection) -> dict[str, Any]:
    """The settings of the adapters, with the ranks and scalings of those that are kept.

    PEFT's `r` and `lora_alpha` are the largest rank and its alpha, and it gives fused experts a multiple of both.
    """
    times = selection.fused_rank or 1
    ranks = {rank // times if name.endswith(FUSED) else rank for name, rank in selection.ranks.items()}
    scalings = {float(f"{scaling:.6g}") for scaling in selection.scalings.values()}
    return {
        "rank": ", ".join(map(str, sorted(ranks))),
        "scaling": ", ".join(f"{scaling:g}" for scaling in sorted(scalings)),
        **{name: value for name, value in selection.lora.items() if name not in ("r", "lora_alpha")},
    }


def _differences(runs: Sequence[RunReport]) -> list[tuple[str, list[str]]]:
    """Models, settings of PEFT and of the choice, and versions that are not the same in all runs."""
    tables: list[dict[str, Any]] = [
        {
            "model": run.selection.model,
            **_adapters_of(run.selection),
            **{name: value for name, (value, _) in run.settings.items()},
            **{f"version of {name}": value for name, value in run.versions.items()},
        }
        for run in runs
    ]
    names = dict.fromkeys(name for table in tables for name in table)
    found = [(name, [as_text(table.get(name)) for table in tables]) for name in names]
    return [(name, values) for name, values in found if len(set(values)) > 1]
