"""Tables laid out like the paper's: a row a method, a column a task, the trainable parameters in front."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..report.comparison import write_whole
from .results import load_results
from .summary import interval, markdown_table

__all__ = ["render_layout", "write_layout"]

PERCENT = {"accuracy", "f1", "f1_macro", "matthews", "pearson", "spearman", "precision", "recall"}
"""Metrics from 0 to 1; tables give them in percent, as SQuAD's and ROUGE are."""


def render_layout(results: Iterable[Mapping[str, Any]], title: str) -> str:
    """Markdown of the results of a sweep; empty if there is none among them.

    Each cell has a task's metrics in percent, mean over seeds and half-width of the 95 % t-interval.
    """
    cells: defaultdict[str, defaultdict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    tasks: dict[str, list[str]] = {}
    models = set()
    for result in results:
        if "settings" in result["experiment"]:
            cells[result["method"]][result["task"]].append(result)
            tasks.setdefault(result["task"], list(result["metrics"]))
            settings = result["experiment"]["settings"]
            data = settings.get("dataset") or "the hub's data"
            models.add(f"{settings.get('model')} on {data}, {result['machine']['device']}")
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
    text = "Mean over seeds ± half-width of the 95 % t-interval, in percent. Trainable parameters: after selection."
    remark = f"What ran: {'; '.join(sorted(models))}."
    return "\n\n".join([f"# {title}", markdown_table(header, rows), text, remark]) + "\n"


def _cell(runs: list[Mapping[str, Any]], metrics: list[str]) -> str:
    parts = []
    for name in metrics:
        factor = 100 if name.split(",")[0] in PERCENT else 1
        value = interval([factor * run["metrics"][name] for run in runs])
        parts.append(f"{value['mean']:.2f}" + ("" if value["ci"] is None else f" ± {value['ci']:.2f}"))
    return " / ".join(parts)


def write_layout(root: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> Path | None:
    """Write `table.md` of the sweep under `root`, if there is one."""
    text = render_layout(load_results(root)[0], Path(root).resolve().name)
    if not text:
        return None
    write_whole(path := Path(out_dir) / "table.md", partial(Path.write_text, data=text, encoding="utf-8"))
    return path
