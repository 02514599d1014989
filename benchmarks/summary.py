"""The summary of stored results, as JSON, Markdown and pictures."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from weightlora.compare.picture import draw_comparison
from weightlora.compare.statistics import REFERENCES, paired, summarize
from weightlora.errors import DataError
from weightlora.files import write_json, write_text
from weightlora.train.result import Result

from .results import load_results, notes
from .tables import render_markdown

__all__ = ["read_extended", "read_summary", "write_summary"]

PEFT_DEFAULT = "peft-default"


def read_summary(
    root: str | os.PathLike[str], tasks: Sequence[str] | None = None, main: Sequence[Result] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The summary of the results below a folder, and notes about it.

    Args:
        root: Folder of the experiments.
        tasks: Only these; all if None.
        main: Results of the main comparison, where `root` is a side comparison. Those of the references, and of
            methods that the side comparison varies, are added where it has no runs of the same label.

    Raises:
        DataError: There is no usable result in `root`, or none of a task, or its results must not be mixed.
    """
    return _read(root, tasks, main)[1:]


def read_extended(
    root: str | os.PathLike[str], tasks: Sequence[str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What `read_summary` gives, and in each entry `vs_peft_default`, `cost` and `list_anew`.

    Raises:
        DataError: As `read_summary`.
    """
    results, summary, remarks = _read(root, tasks, ())
    _extend(summary, results)
    return summary, remarks


def write_summary(
    root: str | os.PathLike[str], out_dir: str | os.PathLike[str], main: Sequence[Result] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Write `summary.json`, `summary.md` and one picture `<task>.png` per task; returns what `read_extended` does.

    Raises:
        DataError: As `read_summary`.
    """
    results, summary, remarks = _read(root, None, main)
    directory = Path(out_dir)
    for task, rows in summary["tasks"].items():
        losses: defaultdict[str, list[float]] = defaultdict(list)
        for result in results:
            if result.task == task:
                losses[result.label].append(result.held_out_loss)
        draw_comparison(task, rows, losses, directory / f"{task}.png")
    write_text(directory / "summary.md", render_markdown(summary, remarks))
    _extend(summary, results)
    write_json(directory / "summary.json", summary)
    return summary, remarks


def _extend(summary: dict[str, Any], results: Sequence[Result]) -> None:
    """Add to each entry of the summary what only the benchmark knows.

    `vs_peft_default` is the paired difference to PEFT's default list. `cost` has the mean `selection_seconds` of a
    probe and its `share_of_run`, the run's training; None for a method without a probe. `list_anew` has the figures
    of the modules that a method kept, trained from the start: those of the label `<label>-anew`, or of a method that
    chooses before the first step its own. It is None where neither was run.
    """
    runs: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        runs[result.task, result.label].append(result)
    for task, rows in summary["tasks"].items():
        reference = {run.seed: run.held_out_loss for run in runs[task, PEFT_DEFAULT]}
        for label, row in rows.items():
            losses = {run.seed: run.held_out_loss for run in runs[task, label]}
            row["vs_peft_default"] = None if label == PEFT_DEFAULT else paired(losses, reference)
            row["cost"] = _cost(runs[task, label])
        for label, row in rows.items():
            found = rows.get(f"{label}-anew") or (row if row["cost"] else None)
            figures = {key: value for key, value in (found or {}).items() if key not in ("cost", "list_anew")}
            row["list_anew"] = figures or None


def _cost(runs: Sequence[Result]) -> dict[str, float] | None:
    probes = [run.evidence for run in runs if run.evidence and "selection_seconds" in run.evidence]
    if not probes:
        return None
    seconds = [probe["selection_seconds"] for probe in probes]
    shares = [probe["selection_seconds"] / probe["train_seconds"] for probe in probes]
    return {"selection_seconds": fmean(seconds), "share_of_run": fmean(shares)}


def _read(
    root: str | os.PathLike[str], tasks: Sequence[str] | None, main: Sequence[Result]
) -> tuple[list[Result], dict[str, Any], list[str]]:
    results, set_aside = load_results(root)
    known = sorted({result.task for result in results})
    for task in tasks or ():
        if task not in known:
            raise DataError(f"task {task!r} has no results in {root}: there are {', '.join(known) or 'none'}.")
    results = [result for result in results if not tasks or result.task in tasks]
    results += _added(results, main)
    remarks = notes(results, [(path.relative_to(root), reason) for path, reason in set_aside])
    if not results:
        raise DataError("\n".join([f"no results in {root}/<task>/results/<label>/seed-<k>.json.", *remarks]))
    return results, summarize(results), remarks


def _added(side: Sequence[Result], main: Sequence[Result]) -> list[Result]:
    """The results of the main comparison that a side comparison needs."""
    there = {(run.task, run.label) for run in side}
    wanted = {(run.task, label) for run in side for label in (run.method, *REFERENCES)}
    return [run for run in main if (run.task, run.label) in wanted - there]
