"""What the result files say: means, intervals and paired differences, as JSON, Markdown, tables and pictures."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.preprocessing import MultiLabelBinarizer

from weightlora.report.figures import write_whole

from .figures.comparison import draw_comparison
from .results import REFERENCES, load_results, notes

__all__ = [
    "difference",
    "interval",
    "jaccard",
    "paired",
    "print_tables",
    "read_summary",
    "render_markdown",
    "summarize",
    "write_summary",
]

CONFIDENCE = 0.95
LEGEND = (
    "Sorted by held-out loss, lower is better. ± is the half-width of the 95 % t-interval over seeds. `vs`: the loss "
    "minus the reference's at the same seeds; ▼ (lower) and ▲ (higher) mark intervals that exclude 0, uncorrected for "
    "the number of methods; in brackets the number of seeds at which it is lower. Trainable parameters: after "
    "selection, mean over seeds. `Jaccard`: overlap of the kept sets of two seeds, mean over pairs (1: equal sets)."
)


def summarize(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means, intervals and paired differences: `{"tasks": {task: {method: {...}}}}`, methods sorted by loss.

    `ci` is the half-width of the 95 % t-interval, None for one seed. `vs_random`, `vs_lora` and `vs_weightlora` are
    differences in loss (method minus reference) over the common seeds, with `wins`, the number of seeds at which the
    method's is lower; None for the reference itself and without a common seed. `trainable_parameters` is the mean
    over seeds, rounded. `jaccard` is the mean overlap of two seeds' `kept`, None for one seed or where a run has no
    `kept`.

    Raises:
        ValueError: a seed occurs twice for a method, or runs of one task name different metrics.
    """
    runs: defaultdict[str, defaultdict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        runs[result["task"]][result["method"]].append(result)
    return {"tasks": {task: _summarize_task(task, methods) for task, methods in sorted(runs.items())}}


def render_markdown(summary: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """One table a task, then what the columns mean, then the notes."""
    parts = []
    for task, methods in summary["tasks"].items():
        header, *rows = _table(methods)
        parts += [f"## {escape_markdown(task)}", markdown_table(header, rows)]
        parts += map(escape_markdown, _missing(methods))
    parts.append(LEGEND)
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def print_tables(summary: Mapping[str, Any], console: Console) -> None:
    """Prints one table a task, with the same cells as the Markdown."""
    for task, methods in summary["tasks"].items():
        header, *rows = _table(methods)
        table = Table(title=Text(task))
        for name in header:
            table.add_column(Text(name), justify="left" if name == "method" else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        console.print(*map(Text, _missing(methods)), sep="\n")


def read_summary(
    root: str | os.PathLike[str], tasks: Sequence[str] | None = None, main: Sequence[dict[str, Any]] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The summary of the results under `root` and the notes; of all tasks, or of those given.

    Args:
        root: Folder of the experiments.
        tasks: Only these.
        main: Results of the comparison that `root` is a study beside. Those of the references, and of methods that
            the study varies, count where the study has none of its own: nothing has to run twice.

    Raises:
        ValueError: there is no usable result under `root`, none of a task, or its results must not be mixed.
    """
    return _read(root, tasks, main)[1:]


def write_summary(
    root: str | os.PathLike[str], out_dir: str | os.PathLike[str], main: Sequence[dict[str, Any]] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Writes `summary.json`, `summary.md` and a picture `<task>.png` a task; returns what `read_summary` does.

    Each file appears whole or not at all.

    Raises:
        ValueError: as `read_summary`.
    """
    results, summary, remarks = _read(root, None, main)
    directory = Path(out_dir)
    directory.mkdir(parents=True, exist_ok=True)
    for task, methods in summary["tasks"].items():
        draw_comparison(task, methods, results, directory / f"{task}.png")
    text = {"md": render_markdown(summary, remarks), "json": json.dumps(summary, indent=2, allow_nan=False) + "\n"}
    for kind, content in text.items():
        write_whole(directory / f"summary.{kind}", partial(Path.write_text, data=content, encoding="utf-8"))
    return summary, remarks


def _read(
    root: str | os.PathLike[str], tasks: Sequence[str] | None, main: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    results, set_aside = load_results(root)
    known = sorted({result["task"] for result in results})
    for task in tasks or ():
        if task not in known:
            raise ValueError(f"task {task!r} has no results in {root}: there are {', '.join(known) or 'none'}.")
    results = [result for result in results if not tasks or result["task"] in tasks]
    results += _beside(results, main)
    remarks = notes(results, [(path.relative_to(root), reason) for path, reason in set_aside])
    if not results:
        raise ValueError("\n".join([f"no results in {root}/<task>/results/<method>/seed-<k>.json.", *remarks]))
    return results, summarize(results), remarks


def _beside(study: Sequence[Mapping[str, Any]], main: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the main comparison's results, those that a study's compare with."""
    there = {(run["task"], run["method"]) for run in study}
    wanted = {(run["task"], method) for run in study for method in (run["experiment"].get("method"), *REFERENCES)}
    return [run for run in main if (run["task"], run["method"]) in wanted - there]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text, its first column to the left and all others to the right."""
    line = ["---", *["---:"] * (len(header) - 1)]
    cells = [map(escape_markdown, header), line, *(map(escape_markdown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def escape_markdown(text: str) -> str:
    """The text on one line, so that Markdown (GitHub's and Python-Markdown, table cells too) shows it as it is."""
    plain = {ord(sign): f"\\{sign}" for sign in "\\`*_[]|#"} | {ord(sign): f"&#{ord(sign)};" for sign in "&<>~"}
    return " ".join(text.split()).translate(plain)


def _summarize_task(task: str, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    losses = {method: {run["seed"]: run["loss"] for run in runs} for method, runs in methods.items()}
    if twice := [method for method, runs in methods.items() if len(losses[method]) < len(runs)]:
        raise ValueError(f"{task}: two results of one seed of {', '.join(twice)}")
    metric, *others = sorted({run["metric"]["name"] for runs in methods.values() for run in runs})
    if others:
        raise ValueError(f"{task}: the runs name different metrics: {', '.join([metric, *others])}")
    entries: dict[str, dict[str, Any]] = {
        method: {
            "seeds": len(runs),
            "loss": interval([run["loss"] for run in runs]),
            "metric": {"name": metric, **interval([run["metric"]["value"] for run in runs])},
            "trainable_parameters": round(float(np.mean([run["trainable_parameters"]["after"] for run in runs]))),
            **{
                f"vs_{name}": None if name == method else paired(losses[method], losses.get(name, {}))
                for name in REFERENCES
            },
            "jaccard": jaccard([run.get("kept") for run in runs]),
        }
        for method, runs in methods.items()
    }
    return dict(sorted(entries.items(), key=lambda item: (item[1]["loss"]["mean"], item[0])))


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and half-width of the t-interval (None for one value)."""
    count = len(values)
    ci = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * stats.sem(values)) if count > 1 else None
    return {"mean": float(np.mean(values)), "ci": ci}


def paired(losses: Mapping[int, float], reference: Mapping[int, float]) -> dict[str, Any] | None:
    """Differences at the common seeds, losses minus reference: mean, `ci` and `wins`; None without a common seed.

    Args:
        losses, reference: Seed -> loss.
    """
    if not (seeds := sorted(losses.keys() & reference.keys())):
        return None
    differences = [losses[seed] - reference[seed] for seed in seeds]
    return {**interval(differences), "wins": sum(difference < 0 for difference in differences)}


def jaccard(kept: Sequence[Sequence[str] | None]) -> float | None:
    """Mean Jaccard overlap over pairs of sets; None for a single set, or where one is missing."""
    sets = [names for names in kept if names is not None]
    if len(sets) < max(2, len(kept)):
        return None
    return float(1 - pdist(MultiLabelBinarizer().fit_transform(sets).astype(bool), "jaccard").mean())


def _table(methods: Mapping[str, Any]) -> list[list[str]]:
    """The header and a row a method, in the order given, as plain text."""
    metric = next(iter(methods.values()))["metric"]["name"]
    header = ["method", "seeds", "loss", metric, "trainable parameters"]
    header += [f"vs {reference}" for reference in REFERENCES] + ["Jaccard"]
    return [header, *starmap(_cells, methods.items())]


def _cells(method: str, entry: Mapping[str, Any]) -> list[str]:
    loss, metric, parameters = entry["loss"], entry["metric"], entry["trainable_parameters"]
    cells = [method, str(entry["seeds"]), _with_interval(loss), _with_interval(metric), f"{parameters:,}"]
    for versus in (entry[f"vs_{reference}"] for reference in REFERENCES):
        cells.append("" if versus is None else f"{difference(versus)} ({versus['wins']})")
    return [*cells, "" if entry["jaccard"] is None else f"{entry['jaccard']:.2f}"]


def _with_interval(value: Mapping[str, Any], style: str = ".4f") -> str:
    return f"{value['mean']:{style}}" + ("" if value["ci"] is None else f" ± {value['ci']:.4f}")


def difference(versus: Mapping[str, Any] | None) -> str:
    """What `paired` found, as text, with a mark where its interval excludes 0; empty for None."""
    if versus is None:
        return ""
    excludes_zero = versus["ci"] is not None and abs(versus["mean"]) > versus["ci"]
    mark = (" ▼" if versus["mean"] < 0 else " ▲") if excludes_zero else ""
    return _with_interval(versus, "+.4f") + mark


def _missing(methods: Mapping[str, Any]) -> Iterator[str]:
    """Why a cell has no interval, or why it is empty."""
    if single := [name for name, entry in methods.items() if entry["loss"]["ci"] is None]:
        yield f"No interval for {', '.join(single)}: one seed says nothing about the spread, an interval needs two."
    for reference in REFERENCES:
        if reference not in methods:
            yield f"There are no results of {reference} to compare with."
            continue
        versus = {name: entry[f"vs_{reference}"] for name, entry in methods.items() if name != reference}
        if apart := [name for name, value in versus.items() if value is None]:
            yield f"Not compared with {reference}, for want of a common seed: {', '.join(apart)}."
        if once := [name for name, value in versus.items() if value and value["ci"] is None and name not in single]:
            yield f"No interval against {reference}, for there is one common seed: {', '.join(once)}."
