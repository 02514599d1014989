"""Tables in the layout of the paper: one row per method, one column per task, trainable parameters in front."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from weightlora.compare.statistics import interval
from weightlora.compare.tables import markdown_table
from weightlora.files import write_text
from weightlora.train.result import HELD_OUT_LOSS, Result

from ..results import load_results

ORDER = [
    "lora",
    "lora-equal",
    "random",
    "top",
    "last-layers",
    "weightlora",
    "weightlora-plus",
    "weightlora-paper",
    "weightlora-paper-plus",
    "grad-norm",
    "kappa",
    "eva",
    "adalora",
    "dora",
    "rslora",
    "loha",
    "lokr",
    "vera",
    "full",
]
"""Rows are in the order of their methods here. Rows of other methods come last."""
LEGEND = (
    "Mean over seeds ± half-width of the 95 % t-interval, everything but perplexity in percent. Trainable parameters: "
    "after selection, the mean of the row's runs where they differ."
)


def render_layout(results: Iterable[Result]) -> str:
    """A Markdown table and its legend; empty without results.

    Each cell has the metrics of a task: mean over seeds and half-width of the 95 % t-interval.

    Args:
        results: As they were loaded, of a sweep or of experiments.
    """
    cells: defaultdict[str, defaultdict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    tasks: dict[str, list[tuple[str, str]]] = {}
    order = {name: place for place, name in enumerate(ORDER)}
    for result in sorted(results, key=lambda run: order.get(run.method, len(order))):
        cells[result.label][result.task].append(result)
        tasks.setdefault(result.task, _columns(result))
    if not cells:
        return ""
    header = ["method", "seeds", "trainable"]
    for task, columns in tasks.items():
        header.append(f"{task} ({' / '.join(_title(columns, column) for column in columns)})")
    rows = []
    for label, by_task in cells.items():
        runs = [run for several in by_task.values() for run in several]
        trained = round(float(np.mean([_trained(run) for run in runs])))
        counts = sorted({len(several) for several in by_task.values()})
        row = [label, "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))), f"{trained:,}"]
        rows.append([*row, *(_cell(by_task[task], found) if task in by_task else "" for task, found in tasks.items())])
    return f"{markdown_table(header, rows)}\n\n{LEGEND}"


def is_sweep(result: Result) -> bool:
    """Whether the run is of a sweep over recipes, not of an experiment."""
    return "settings" in result.settings


def _columns(result: Result) -> list[tuple[str, str]]:
    """Split and metric of each figure in a cell: the main metric first, split by split."""
    found = [(split, name) for split, values in result.metrics.items() for name in values if name != HELD_OUT_LOSS]
    return sorted(found, key=lambda column: column != (result.split, result.metric))


def _title(columns: list[tuple[str, str]], column: tuple[str, str]) -> str:
    """The metric, with the split where it is not the first one: `accuracy, mismatched`."""
    split, name = column
    return name if split == columns[0][0] else f"{name}, {split.rpartition('_')[2]}"


def _trained(result: Result) -> int:
    """Trainable parameters. As in the paper, sweeps count the task head; experiments count adapters only."""
    if is_sweep(result) and result.trainable_parameters_after is not None:
        return result.trainable_parameters_after
    return result.adapter_parameters_after


def _cell(runs: list[Result], columns: list[tuple[str, str]]) -> str:
    parts = []
    for split, name in columns:
        factor = 100 if runs[0].metric_units.get(name) == "fraction" else 1
        value = interval([factor * run.metrics[split][name] for run in runs])
        parts.append(f"{value['mean']:.2f}" + ("" if value["ci"] is None else f" ± {value['ci']:.2f}"))
    return " / ".join(parts)


def _what_ran(results: Iterable[Result]) -> str:
    """Models, data and devices of the runs of a sweep."""
    found = set()
    for result in results:
        settings = result.settings["settings"]
        data = settings.get("dataset") or settings.get("train_file") or "the hub's data"
        found.add(f"{settings.get('model')} on {data}, {result.machine['device']}")
    return f"What ran: {'; '.join(sorted(found))}."


def write_layout(root: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> Path | None:
    """Write `table.md` of the sweep under `root`, if there is one."""
    results = [result for result in load_results(root)[0] if is_sweep(result)]
    if not results:
        return None
    text = "\n\n".join([f"# {Path(root).resolve().name}", render_layout(results), _what_ran(results)]) + "\n"
    return write_text(Path(out_dir) / "table.md", text)
