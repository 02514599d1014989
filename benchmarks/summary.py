"""The summary of stored results, as JSON and Markdown."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from weightlora.compare.statistics import paired, summarize
from weightlora.errors import ConfigError, DataError
from weightlora.files import write_json, write_text
from weightlora.train.result import Result

from .decision import PEFT_DEFAULT
from .experiments import SEEDS, is_still_alike, resolve
from .results import REFERENCES, grouped, load_results, losses, notes, probe_cost
from .tables import render_markdown


def read_summary(
    root: str | os.PathLike[str], tasks: Sequence[str] | None = None, main: Sequence[Result] = ()
) -> tuple[list[Result], dict[str, Any], list[str]]:
    """The results below a folder, their summary, and notes about it.

    Args:
        root: Folder of the experiments.
        tasks: Only these; all if None.
        main: Results of the main comparison, where `root` is a side comparison. Those of the references, and of
            methods that the side comparison varies, are added where it has no runs of the same label, and where a
            seed is in both.

    Raises:
        DataError: There is no usable result in `root`, or none of a task, or its results must not be mixed.
    """
    results, set_aside = load_results(root)
    known = sorted({result.task for result in results})
    for task in tasks or ():
        if task not in known:
            raise DataError(f"task {task!r} has no results in {root}: there are {', '.join(known) or 'none'}.")
    results = [result for result in results if not tasks or result.task in tasks]
    outdated = [*_outdated(Path(root), results)]
    results += _added(results, main)
    remarks = outdated + notes(results, [(path.relative_to(root), reason) for path, reason in set_aside])
    if not results:
        raise DataError("\n".join([f"no results in {root}/<task>/results/<label>/seed-<k>.json.", *remarks]))
    return results, summarize(results, REFERENCES), remarks


def write_summary(root: str | os.PathLike[str], directory: Path) -> None:
    """Write `summary.json`, extended, and `summary.md`.

    Raises:
        DataError: As `read_summary`.
    """
    results, summary, remarks = read_summary(root)
    write_text(directory / "summary.md", render_markdown(summary, remarks))
    extend_(summary, results)
    write_json(directory / "summary.json", summary)


def extend_(summary: dict[str, Any], results: Sequence[Result]) -> None:
    """Add to each entry of the summary what only the benchmark knows.

    `vs_peft_default` is the paired difference to PEFT's default list. `cost` has the mean `selection_seconds` of a
    probe and its `share_of_run`, the run's training; None for a method without a probe. `list_anew` has the figures
    of the modules that a method kept, trained from the start: those of the label `<label>-anew`, or of a method that
    chooses before the first step its own. It is None where neither was run.
    """
    runs = grouped(results)
    for task, rows in summary["tasks"].items():
        reference = losses(runs[task, PEFT_DEFAULT])
        for label, row in rows.items():
            row["vs_peft_default"] = None if label == PEFT_DEFAULT else paired(losses(runs[task, label]), reference)
            row["cost"] = probe_cost(runs[task, label])
        for label, row in rows.items():
            found = rows.get(f"{label}-anew") or (row if row["cost"] else None)
            figures = {key: value for key, value in (found or {}).items() if key not in ("cost", "list_anew")}
            row["list_anew"] = figures or None


def _added(side: Sequence[Result], main: Sequence[Result]) -> list[Result]:
    """The results of the main comparison that a side comparison needs."""
    there, seeds = {(run.task, run.label) for run in side}, {(run.task, run.seed) for run in side}
    wanted = {(run.task, label) for run in side for label in (run.method, *REFERENCES)}
    comparable = {(run.task, run.label) for run in main if (run.task, run.seed) in seeds}
    return [run for run in main if (run.task, run.label) in wanted & comparable - there]


def _outdated(root: Path, results: Sequence[Result]) -> Iterator[str]:
    """Methods whose stored runs are not what their experiment asks for now, a sentence each."""
    for (task, label), runs in grouped(results).items():
        try:
            now = {key: value for key, value in resolve(root, task, label).items() if key not in SEEDS}
        except (ConfigError, DataError):  # results without an experiment, such as those of a sweep
            continue
        then = next(iter(runs.values())).settings  # all of a method have the same
        if keys := sorted(key for key in {*now, *then} if now.get(key) != then.get(key)):
            differing = ", ".join(keys)
            yield f"{task}: {label} ran with other settings than {label}.json has now ({differing}): run it again."
        elif seeds := [str(seed) for seed, run in runs.items() if not is_still_alike(run)]:
            yield (
                f"{task}: {label} has sets of other sizes than what its `like` keeps now (seed {', '.join(seeds)}): "
                "run it again."
            )
