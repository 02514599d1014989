"""Reading result files: only whole ones of this format, in their place, that may be averaged with one another."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

__all__ = ["REFERENCES", "load_results", "notes"]

RESULT_FORMAT = 1
REFERENCES = ("random", "lora", "weightlora")
PACKAGES = ("weightlora", "torch", "peft", "transformers")
NUMBER, LIST_OR_NULL = (int, float), (list, type(None))
FIELDS: dict[str, Any] = {"task": str, "method": str, "seed": int, "experiment": dict, "versions": dict}
FIELDS |= {"loss": NUMBER, "metric.name": str, "metric.value": NUMBER, "kept": LIST_OR_NULL}
FIELDS |= {"trainable_parameters.after": NUMBER}
WHICH_RUNS = {"seed", "seeds"}  # in `experiment`, these say which runs there are, not how one goes
# What makes a method: these may differ between two.
PER_METHOD = {"label", "method", "options", "learning_rate", "evidence", "leave_one_out", "settings"}


def load_results(root: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[tuple[Path, str]]]:
    """Reads every `<root>/<task>/results/<method>/seed-<k>.json`.

    Results of one method on one task must agree in `experiment`, `seeds` excepted. Everything else that differs,
    `notes` tells.

    Where results of a task come from several versions of this package, only those of the newest count.

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
    found, older = _newest(found)
    set_aside += older
    found.sort(key=lambda item: (item[1]["task"], item[1]["method"], item[1]["seed"]))
    _check_experiments(found)
    return [result for _, result in found], set_aside


def notes(results: Sequence[Mapping[str, Any]], set_aside: Iterable[tuple[Path, str]] = ()) -> list[str]:
    """What a reader of the summary has to know, one sentence each: files set aside, and comparisons of unlike runs."""
    found = [f"Set aside, in no average: {path}: {reason}." for path, reason in set_aside]
    for task in sorted({result["task"] for result in results}):
        runs = [result for result in results if result["task"] == task]
        found += [*_differing_versions(task, runs), *_differing_settings(task, runs), *_differing_seeds(task, runs)]
    return found


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


Found = list[tuple[Path, dict[str, Any]]]


def _newest(found: Found) -> tuple[Found, list[tuple[Path, str]]]:
    """The results of each task's newest version of this package, and the others with the reason."""
    versions: defaultdict[str, list[Version]] = defaultdict(list)
    for _, result in found:
        versions[result["task"]].append(_version(result))
    newest = {task: max(several) for task, several in versions.items()}
    kept = [(path, result) for path, result in found if _version(result) == newest[result["task"]]]
    older = [
        (
            path,
            f"of weightlora {result['versions'].get('weightlora')}, and there are results of {newest[result['task']]}",
        )
        for path, result in found
        if _version(result) != newest[result["task"]]
    ]
    return kept, older


def _version(result: Mapping[str, Any]) -> Version:
    try:
        return Version(str(result["versions"].get("weightlora")))
    except InvalidVersion:
        return Version("0")


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
    used = {f"versions of {name}": [str(run["versions"].get(name)) for run in runs] for name in PACKAGES}
    # Processors with different vector instructions round differently.
    used["processors"] = [run["machine"]["capability"] for run in runs if "capability" in run.get("machine", ())]
    for what, values in used.items():
        if len(count := Counter(values)) > 1:
            several = ", ".join(f"{value} ({number} runs)" for value, number in sorted(count.items()))
            yield f"{task}: the runs used different {what}: {several}."


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
