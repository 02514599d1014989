"""Which modules update credit kept, over seeds: what to put under `target_modules` where nothing can be chosen."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from weightlora.report.picture import lay_out

from ..summary import escape_markdown, jaccard, markdown_table

__all__ = ["keeping", "render_kept_markdown", "share_of_seeds"]

TEXT = (
    "Share of the adapters of a module type that the default kept, mean over seeds: in all layers, and in the lower, "
    "middle and upper third of them. A choice without preference would have the same share everywhere."
)
THIRDS = ("lower", "middle", "upper")


def keeping(results: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Task -> the runs of the default that tell what they kept."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if result["method"] == "weightlora" and result.get("kept") and result.get("names"):
            found.setdefault(result["task"], []).append(result)
    return found


def share_of_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Name of each adapter -> the share of the runs that kept it."""
    return {name: sum(name in run["kept"] for run in runs) / len(runs) for name in runs[0]["names"]}


def render_kept_markdown(results: Iterable[Mapping[str, Any]]) -> str:
    """A table a task, a row a module type; empty without a run that tells what it kept.

    Args:
        results: As they were loaded.
    """
    parts = []
    for task, runs in keeping(results).items():
        shares, seeds = share_of_seeds(runs), len(runs)
        overlap = jaccard([run["kept"] for run in runs])
        title = f"## {escape_markdown(task)}: {len(runs[0]['kept'])} of {len(shares)}, {seeds} seed{'s' * (seeds > 1)}"
        parts += [
            title,
            f"![share of the seeds that kept each adapter]({quote(task)}-kept.png)",
            markdown_table(*_table(shares)),
        ]
        if overlap is not None:
            parts += [f"Overlap of two seeds' choices (mean Jaccard): {overlap:.2f}."]
    return "\n\n".join(["# What update credit keeps", TEXT, *parts]) + "\n" if parts else ""


def _table(shares: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    grid = lay_out(list(shares))
    table = np.full((len(grid.rows), len(grid.columns)), np.nan)
    for cell, share in zip(grid.cells, shares.values(), strict=True):
        table[cell] = share
    columns = [table, *np.array_split(table, len(THIRDS), axis=1)]
    rows = [[kind, *(_percent(part[row]) for part in columns)] for row, kind in enumerate(grid.rows)]
    order = np.argsort(-np.nanmean(table, axis=1), kind="stable")
    return ["module type", "all layers", *THIRDS], [rows[row] for row in order]


def _percent(shares: np.ndarray) -> str:
    """Empty where there is no such module."""
    return "" if np.isnan(shares).all() else f"{np.nanmean(shares):.0%}"
