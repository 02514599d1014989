"""What the result files say: means, intervals and paired differences, as JSON, Markdown, tables and pictures."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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

from ..report.comparison import draw_comparison, write_whole

__all__ = ["load_results", "notes", "print_tables", "render_markdown", "summarize", "write_summary"]

RESULT_FORMAT = 1
CONFIDENCE = 0.95
REFERENCES = ("random", "lora")
PACKAGES = ("weightlora", "torch", "peft", "transformers")
NUMBER, LIST_OR_NULL = (int, float), (list, type(None))
FIELDS: dict[str, Any] = {"task": str, "method": str, "seed": int, "experiment": dict, "versions": dict}
FIELDS |= {"loss": NUMBER, "metric.name": str, "metric.value": NUMBER, "kept": LIST_OR_NULL}
FIELDS |= {"trainable_parameters.after": NUMBER}
WHICH_RUNS = {"seed", "seeds"}  # in `experiment`, these say which runs there are, not how one goes
# What makes a method: these may differ between two.
PER_METHOD = {"label", "method", "options", "learning_rate", "evidence"}
LEGEND = (
    "Sorted by held-out loss, lower is better. ± is the half-width of the 95 % t-interval over seeds. `vs`: the loss "
    "minus the reference's at the same seeds; ▼ (lower) and ▲ (higher) mark intervals that exclude 0, uncorrected for "
    "the number of methods. `wins`: seeds at which the loss is below that of `random`. Trainable parameters: after "
    "selection, mean over seeds. `Jaccard`: overlap of the kept sets of two seeds, mean over pairs (1: equal sets)."
)


def load_results(root: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[tuple[Path, str]]]:
    """Reads every `<root>/<task>/results/<method>/seed-<k>.json`.

    Results of one method on one task must agree in `experiment`, `seeds` excepted. Everything else that differs,
    `notes` tells.

    Returns:
        The results by task, method and seed, and (path, reason) of each file that is no complete result of this
        format, or not where its content belongs. Those are in no average.

    Raises:
        ValueError: two results of one method disagree in `experiment`; both files are named.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    set_aside: list[tuple[Path, str]] = []
    for path in sorted(Path(root).glob("*/results/*/seed-*.json")):
        try:
            found.append((path, _read_result(path)))
        except (OSError, ValueError) as error:
            set_aside.append((path, str(error)))
    found.sort(key=lambda item: (item[1]["task"], item[1]["method"], item[1]["seed"]))
    _check_experiments(found)
    return [result for _, result in found], set_aside


def summarize(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means, intervals and paired differences: `{"tasks": {task: {method: {...}}}}`, methods sorted by loss.

    `ci` is the half-width of the 95 % t-interval, None for one seed. `vs_random` and `vs_lora` are differences in loss
    (method minus reference) over the common seeds, with `wins`, the number of seeds at which the method's is lower;
    None for the reference itself and without a common seed. `trainable_parameters` is the mean over seeds, rounded.
    `jaccard` is the mean overlap of two seeds' `kept`, None for one seed or where a run has no `kept`.

    Raises:
        ValueError: a seed occurs twice for a method, or runs of one task name different metrics.
    """
    runs: defaultdict[str, defaultdict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        runs[result["task"]][result["method"]].append(result)
    return {"tasks": {task: _summarize_task(task, methods) for task, methods in sorted(runs.items())}}


def notes(results: Sequence[Mapping[str, Any]], set_aside: Iterable[tuple[Path, str]] = ()) -> list[str]:
    """What a reader of the summary has to know, one sentence each: files set aside, and comparisons of unlike runs."""
    found = [f"Set aside, in no average: {path}: {reason}." for path, reason in set_aside]
    for task in sorted({result["task"] for result in results}):
        runs = [result for result in results if result["task"] == task]
        found += [*_differing_versions(task, runs), *_differing_settings(task, runs), *_differing_seeds(task, runs)]
    return found


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


def write_summary(root: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """Writes `summary.json`, `summary.md` and a picture `<task>.png` a task; returns the summary and the notes.

    Each file appears whole or not at all.

    Raises:
        ValueError: there is no usable result under `root`, or its results must not be mixed.
    """
    results, set_aside = load_results(root)
    remarks = notes(results, [(path.relative_to(root), reason) for path, reason in set_aside])
    if not results:
        raise ValueError("\n".join([f"no results in {root}/<task>/results/<method>/seed-<k>.json.", *remarks]))
    summary = summarize(results)
    directory = Path(out_dir)
    directory.mkdir(parents=True, exist_ok=True)
    for task, methods in summary["tasks"].items():
        draw_comparison(task, methods, results, directory / f"{task}.png")
    text = {"md": render_markdown(summary, remarks), "json": json.dumps(summary, indent=2, allow_nan=False) + "\n"}
    for kind, content in text.items():
        write_whole(directory / f"summary.{kind}", partial(Path.write_text, data=content, encoding="utf-8"))
    return summary, remarks


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text, its first column to the left and all others to the right."""
    line = ["---", *["---:"] * (len(header) - 1)]
    cells = [map(escape_markdown, header), line, *(map(escape_markdown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def escape_markdown(text: str) -> str:
    """The text on one line, so that Markdown (GitHub's and Python-Markdown, table cells too) shows it as it is."""
    plain = {ord(sign): f"\\{sign}" for sign in "\\`*_[]|#"} | {ord(sign): f"&#{ord(sign)};" for sign in "&<>~"}
    return " ".join(text.split()).translate(plain)


def _read_result(path: Path) -> dict[str, Any]:
    """The result in a file; a ValueError says what is wrong with it."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"no complete JSON ({error})") from error
    if not isinstance(result, dict) or result.get("format") != RESULT_FORMAT:
        raise ValueError(f"not a result of format {RESULT_FORMAT}")
    for field, kind in FIELDS.items():
        outer, _, inner = field.rpartition(".")
        inside = result.get(outer) if outer else result
        value = inside.get(inner) if isinstance(inside, dict) else None
        infinite = isinstance(value, float) and not math.isfinite(value)
        if infinite or isinstance(value, bool) or not isinstance(value, kind):
            raise ValueError(f"{field} is missing or malformed ({value!r})")
    place = Path(result["task"], "results", result["method"], f"seed-{result['seed']}.json")
    if Path(*path.parts[-4:]) != place:
        raise ValueError(f"belongs in {place}")
    return result


def _differing_keys(first: Mapping[str, Any], second: Mapping[str, Any], ignored: Set[str]) -> list[str]:
    """Names of the settings in which two results differ; a setting that only one of them has counts."""
    one, other, missing = first["experiment"], second["experiment"], object()
    return sorted(k for k in (one.keys() | other.keys()) - ignored if one.get(k, missing) != other.get(k, missing))


def _check_experiments(found: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    first: dict[tuple[str, str], tuple[Path, Mapping[str, Any]]] = {}
    for path, result in found:
        other_path, other = first.setdefault((result["task"], result["method"]), (path, result))
        if keys := _differing_keys(other, result, WHICH_RUNS):
            raise ValueError(
                f"{other_path} and {path} are runs of one method with different settings ({', '.join(keys)}): "
                "delete the file with the old settings, or rerun it with the new ones."
            )


def _differing_versions(task: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for package in PACKAGES:
        count = Counter(str(run["versions"].get(package)) for run in runs)
        if len(count) > 1:
            versions = ", ".join(f"{version} ({number} runs)" for version, number in sorted(count.items()))
            yield f"{task}: the runs used different versions of {package}: {versions}."


def _differing_settings(task: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    methods = {run["method"]: run for run in runs}
    first = methods.get("random", runs[0])
    for method, run in methods.items():
        if keys := _differing_keys(first, run, WHICH_RUNS | PER_METHOD):
            yield f"{task}: {method} and {first['method']} ran with different settings: {', '.join(keys)}."


def _differing_seeds(task: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seeds = {name: {run["seed"] for run in runs if run["method"] == name} for name in {run["method"] for run in runs}}
    for reference in (name for name in REFERENCES if name in seeds):
        for method, own in sorted(seeds.items()):
            if 0 < (common := len(own & seeds[reference])) < len(own):
                yield f"{task}: {method} is compared with {reference} at {common} of its {len(own)} seeds."


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
            "loss": _interval([run["loss"] for run in runs]),
            "metric": {"name": metric, **_interval([run["metric"]["value"] for run in runs])},
            "trainable_parameters": round(float(np.mean([run["trainable_parameters"]["after"] for run in runs]))),
            **{f"vs_{name}": _paired(losses, method, name) for name in REFERENCES},
            "jaccard": _jaccard([run.get("kept") for run in runs]),
        }
        for method, runs in methods.items()
    }
    return dict(sorted(entries.items(), key=lambda item: (item[1]["loss"]["mean"], item[0])))


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and half-width of the t-interval (None for one value)."""
    count = len(values)
    ci = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * stats.sem(values)) if count > 1 else None
    return {"mean": float(np.mean(values)), "ci": ci}


def _paired(losses: Mapping[str, Mapping[int, float]], method: str, reference: str) -> dict[str, Any] | None:
    seeds = sorted(losses[method].keys() & losses.get(reference, {}).keys())
    if method == reference or not seeds:
        return None
    differences = [losses[method][seed] - losses[reference][seed] for seed in seeds]
    return {**_interval(differences), "wins": sum(difference < 0 for difference in differences)}


def _jaccard(kept: Sequence[Sequence[str] | None]) -> float | None:
    sets = [names for names in kept if names is not None]
    if len(sets) < max(2, len(kept)):
        return None
    return float(1 - pdist(MultiLabelBinarizer().fit_transform(sets).astype(bool), "jaccard").mean())


def _table(methods: Mapping[str, Any]) -> list[list[str]]:
    """The header and a row a method, in the order given, as plain text."""
    metric = next(iter(methods.values()))["metric"]["name"]
    header = ["method", "seeds", "loss", metric, "trainable parameters"]
    return [[*header, "vs random", "wins", "vs lora", "Jaccard"], *starmap(_cells, methods.items())]


def _cells(method: str, entry: Mapping[str, Any]) -> list[str]:
    loss, metric, parameters = entry["loss"], entry["metric"], entry["trainable_parameters"]
    versus, jaccard = entry["vs_random"], entry["jaccard"]
    cells = [method, str(entry["seeds"]), _with_interval(loss), _with_interval(metric), f"{parameters:,}"]
    cells += [_difference(versus), "" if versus is None else str(versus["wins"]), _difference(entry["vs_lora"])]
    return [*cells, "" if jaccard is None else f"{jaccard:.2f}"]


def _with_interval(value: Mapping[str, Any], style: str = ".4f") -> str:
    return f"{value['mean']:{style}}" + ("" if value["ci"] is None else f" ± {value['ci']:.4f}")


def _difference(versus: Mapping[str, Any] | None) -> str:
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
