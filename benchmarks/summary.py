"""What the result files say: means, intervals and paired differences, as JSON, Markdown, tables and pictures."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from weightlora.compare import statistics
from weightlora.compare.picture import draw_comparison
from weightlora.compare.statistics import interval, jaccard, paired
from weightlora.compare.tables import difference, escape_markdown, markdown_table, print_tables, render_markdown
from weightlora.report.figures import write_whole

from .results import REFERENCES, load_results, notes

__all__ = [
    "difference",
    "escape_markdown",
    "interval",
    "jaccard",
    "markdown_table",
    "paired",
    "print_tables",
    "read_summary",
    "render_markdown",
    "summarize",
    "write_summary",
]


class _Stored(NamedTuple):
    """A result file, as `weightlora.compare.statistics` reads a run."""

    task: str
    label: str
    seed: int
    metric: str
    value: float
    held_out_loss: float
    adapter_parameters_after: int
    kept: Sequence[str] | None


def summarize(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`weightlora.compare.statistics.summarize` of result files."""
    return statistics.summarize(map(_stored, results))


def _stored(run: Mapping[str, Any]) -> _Stored:
    metric, parameters = run["metric"], run["trainable_parameters"]["after"]
    shared = (run["task"], run["method"], run["seed"], metric["name"], metric["value"])
    return _Stored(*shared, run["loss"], parameters, run.get("kept"))


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
        losses = {
            label: [run["loss"] for run in results if (run["task"], run["method"]) == (task, label)]
            for label in methods
        }
        draw_comparison(task, methods, losses, directory / f"{task}.png")
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
