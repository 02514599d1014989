"""Tables laid out like the paper's: a row a method, a column a task, the trainable parameters in front."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from weightlora.report.figures import write_whole
from weightlora.train.methods import METHODS

from .results import load_results
from .summary import interval, markdown_table

__all__ = ["render_layout", "write_layout"]

PERCENT = {"accuracy", "f1", "f1_macro", "matthews", "pearson", "spearman", "precision", "recall"}
"""Metrics from 0 to 1; tables give them in percent, as ROUGE is, and SQuAD's metrics, an F1 among them."""
SQUAD = "exact_match"
LEGEND = (
    "Mean over seeds ± half-width of the 95 % t-interval, everything but perplexity in percent. Trainable parameters: "
    "after selection, the mean of the row's runs where they differ."
)


def render_layout(results: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table, and what its figures are; empty without results.

    Each cell has a task's metrics: mean over seeds and half-width of the 95 % t-interval.

    Args:
        results: As they were loaded, of a sweep or of the benchmark's own experiments.
    """
    cells: defaultdict[str, defaultdict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    tasks: dict[str, list[str]] = {}
    order = {name: place for place, name in enumerate(METHODS)}
    for result in sorted(results, key=lambda run: order.get(run["experiment"]["method"], len(order))):
        cells[result["method"]][result["task"]].append(result)
        first = result["metric"]["name"]
        tasks.setdefault(result["task"], sorted(result["metrics"], key=lambda name: name != first))
    if not cells:
        return ""
    header = ["method", "seeds", "trainable"]
    header += [f"{task} ({' / '.join(metrics)})" for task, metrics in tasks.items()]
    rows = []
    for method, columns in cells.items():
        runs = [run for several in columns.values() for run in several]
        trained = round(float(np.mean([run["trainable_parameters"]["after"] for run in runs])))
        counts = sorted({len(several) for several in columns.values()})
        row = [method, "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))), f"{trained:,}"]
        rows.append(
            [*row, *(_cell(columns[task], metrics) if task in columns else "" for task, metrics in tasks.items())]
        )
    return f"{markdown_table(header, rows)}\n\n{LEGEND}"


def _what_ran(results: Iterable[Mapping[str, Any]]) -> str:
    """Models, data and devices of the runs of a sweep."""
    found = set()
    for result in results:
        settings = result["experiment"]["settings"]
        data = settings.get("dataset") or settings.get("train_file") or "the hub's data"
        found.add(f"{settings.get('model')} on {data}, {result['machine']['device']}")
    return f"What ran: {'; '.join(sorted(found))}."


def _cell(runs: list[Mapping[str, Any]], metrics: list[str]) -> str:
    parts = []
    for name in metrics:
        factor = 100 if name.split(",")[0] in PERCENT and SQUAD not in metrics else 1
        value = interval([factor * run["metrics"][name] for run in runs])
        parts.append(f"{value['mean']:.2f}" + ("" if value["ci"] is None else f" ± {value['ci']:.2f}"))
    return " / ".join(parts)


def write_layout(root: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> Path | None:
    """Write `table.md` of the sweep under `root`, if there is one."""
    results = [result for result in load_results(root)[0] if "settings" in result["experiment"]]
    if not results:
        return None
    text = "\n\n".join([f"# {Path(root).resolve().name}", render_layout(results), _what_ran(results)]) + "\n"
    write_whole(path := Path(out_dir) / "table.md", partial(Path.write_text, data=text, encoding="utf-8"))
    return path
