"""Which modules update credit kept over seeds: a choice for `target_modules` where no run can select."""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

import numpy as np

from weightlora.compare.statistics import jaccard
from weightlora.compare.tables import escape_markdown, markdown_table
from weightlora.layout import lay_out
from weightlora.train.result import Result

from ..depth import THIRDS, thirds_of_depth

TEXT = (
    "The share of the adapters of each module type that update credit kept, as the mean over seeds: in all layers, "
    "and in the lower, middle and upper third of the layers. A random choice would have about the same share "
    "everywhere."
)


def keeping(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Task -> the runs of update credit."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.label == "weightlora" and result.kept and result.names:
            found.setdefault(result.task, []).append(result)
    return found


def share_of_seeds(runs: Sequence[Result]) -> dict[str, float]:
    """Name of each adapter -> the share of the runs that kept it."""
    return {name: sum(name in (run.kept or ()) for run in runs) / len(runs) for name in runs[0].names or ()}


def render_kept_markdown(results: Iterable[Result]) -> str:
    """One table per task, with one row per module type; empty without a run of update credit.

    Args:
        results: As they were loaded.
    """
    parts = []
    for task, runs in keeping(results).items():
        shares, seeds = share_of_seeds(runs), len(runs)
        overlap = jaccard([run.kept for run in runs])
        title = (
            f"## {escape_markdown(task)}: {len(runs[0].kept or ())} of {len(shares)}, {seeds} seed{'s' * (seeds > 1)}"
        )
        parts += [
            title,
            f"![share of the seeds that kept each adapter]({quote(task)}-kept.png)",
            render_shares(shares),
        ]
        if overlap is not None:
            parts += [f"Overlap of two seeds' choices (mean Jaccard): {overlap:.2f}."]
    return "\n\n".join(["# What update credit keeps", TEXT, *parts]) + "\n" if parts else ""


def render_shares(shares: Mapping[str, float]) -> str:
    """A table with a row for each module type, those that were kept most often first."""
    grid = lay_out(list(shares))
    kinds = np.array([row for row, _ in grid.cells])
    thirds, values = np.array(thirds_of_depth(list(shares))), np.array(list(shares.values()))
    rows = []
    for row, kind in enumerate(grid.rows):
        own = kinds == row
        rows.append([kind, *(_percent(values[own & part]) for part in (True, *(thirds == third for third in THIRDS)))])
    order = np.argsort([-values[kinds == row].mean() for row in range(len(rows))], kind="stable")
    return markdown_table(["module type", "all layers", *THIRDS], [rows[row] for row in order])


def _percent(shares: np.ndarray) -> str:
    """The mean; empty where there is no such module."""
    return f"{shares.mean():.0%}" if len(shares) else ""
