"""Reading stored results: only complete ones, in the place where they belong, that may be averaged."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from statistics import fmean

from packaging.version import InvalidVersion, Version

from weightlora.errors import DataError
from weightlora.train.result import Result, read_result

PACKAGES = ("weightlora", "torch", "peft", "transformers")
WHICH_RUNS = {"seed", "seeds"}
"""Settings that say which runs there are, not how a run goes."""
PER_METHOD = {"label", "method", "options", "learning_rate", "evidence", "leave_one_out", "settings"}
"""Settings that make a method, and may differ between two methods."""
REFERENCES = ("random", "lora", "weightlora")
"""Labels that the others are compared with."""
SHARED = (
    *("workload", "steps", "batch_size", "max_length", "bf16", "evaluate_on"),
    *("train_examples", "validation_examples", "test_examples"),
)
"""Settings that all methods of a task share, in all studies: which texts they read, for how long, how precisely."""

Runs = defaultdict[tuple[str, str], dict[int, Result]]
"""(task, label) -> seed -> the run; empty where nothing is stored."""
Found = list[tuple[Path, Result]]
SetAside = list[tuple[Path, str]]


def load_results(root: str | os.PathLike[str]) -> tuple[list[Result], SetAside]:
    """Read every `<root>/<task>/results/<label>/seed-<k>.json`.

    All results of one label on one task must have the same settings, apart from the number of seeds. `notes` tells
    about all other differences. Where a task has results of several versions of this package, only those of the
    newest count.

    Returns:
        The results, sorted by task, label and seed, and the files that are in no average, each with the reason: it is
        not a complete result, or not in the place that its content says.

    Raises:
        DataError: Two results of one label have different settings. The message names both files.
    """
    found: Found = []
    set_aside: SetAside = []
    for path in sorted(Path(root).glob("*/results/*/seed-*.json")):
        try:
            found.append((path, _read(path)))
        except DataError as error:
            set_aside.append((path, str(error)))
    found, older = _newest(found)
    found.sort(key=lambda item: (item[1].task, item[1].label, item[1].seed))
    _check_settings(found)
    return [result for _, result in found], set_aside + older


def grouped(results: Iterable[Result]) -> Runs:
    """The runs of each label on each task. Of two runs at one seed, the later one counts."""
    found: Runs = defaultdict(dict)
    for result in results:
        found[result.task, result.label][result.seed] = result
    return found


def by_seed(results: Iterable[Result], but: Set[str] = frozenset()) -> Runs:
    """The same, for pages that pair runs without a note about their settings.

    Args:
        results: The runs.
        but: `SHARED` settings in which two methods may differ, as the page says.

    Raises:
        DataError: Two runs cannot be compared: of one task, with other `SHARED` settings; or of one label, with any.
    """
    results, first = list(results), dict[str | tuple[str, str], Result]()
    for result in results:
        one = first.setdefault(result.task, result)
        keys = [key for key in SHARED if key not in but and one.settings.get(key) != result.settings.get(key)]
        if not keys:
            one = first.setdefault((result.task, result.label), result)
            keys = _differing_keys(one, result, WHICH_RUNS)
        if keys:
            raise DataError(
                f"{result.task}: {one.label} at seed {one.seed} and {result.label} at seed {result.seed} ran with "
                f"different settings ({', '.join(keys)}), so they cannot be compared: repeat one of them."
            )
    return grouped(results)


def losses(runs: Mapping[int, Result]) -> dict[int, float]:
    """Seed -> held-out loss."""
    return {seed: run.held_out_loss for seed, run in runs.items()}


def probe_cost(runs: Mapping[int, Result]) -> dict[str, float] | None:
    """The mean seconds of a probe, and the mean part of the training that it took; None for a method without one."""
    probes = [run.evidence for run in runs.values() if run.evidence and "selection_seconds" in run.evidence]
    if not probes:
        return None
    seconds = fmean(probe["selection_seconds"] for probe in probes)
    share = fmean(probe["selection_seconds"] / probe["train_seconds"] for probe in probes)
    return {"selection_seconds": seconds, "share_of_run": share}


def notes(results: Sequence[Result], set_aside: Iterable[tuple[Path, str]] = ()) -> list[str]:
    """What a reader of the summary has to know, one sentence each: files set aside, and comparisons of unlike runs."""
    found = [f"Set aside, in no average: {path}: {reason}." for path, reason in set_aside]
    for task in sorted({result.task for result in results}):
        runs = [result for result in results if result.task == task]
        found += [*_differing_versions(task, runs), *_differing_settings(task, runs), *_differing_seeds(task, runs)]
    return found


def _read(path: Path) -> Result:
    result = read_result(path)
    place = Path(result.task, "results", result.label, f"seed-{result.seed}.json")
    if Path(*path.parts[-4:]) != place:
        raise DataError(f"belongs in {place}")
    return result


def _newest(found: Found) -> tuple[Found, SetAside]:
    """The results of the newest version of this package, task by task, and the others with the reason."""
    versions: defaultdict[str, list[Version]] = defaultdict(list)
    for _, result in found:
        versions[result.task].append(_version(result))
    newest = {task: max(several) for task, several in versions.items()}
    kept = [(path, result) for path, result in found if _version(result) == newest[result.task]]
    older = [
        (path, f"of weightlora {result.versions.get('weightlora')}, and there are results of {newest[result.task]}")
        for path, result in found
        if _version(result) != newest[result.task]
    ]
    return kept, older


def _version(result: Result) -> Version:
    try:
        return Version(str(result.versions.get("weightlora")))
    except InvalidVersion:
        return Version("0")


def _differing_keys(first: Result, second: Result, ignored: Set[str]) -> list[str]:
    """Names of the settings in which two results differ; a setting that only one of them has counts."""
    one, other, missing = first.settings, second.settings, object()
    return sorted(k for k in (one.keys() | other.keys()) - ignored if one.get(k, missing) != other.get(k, missing))


def _check_settings(found: Found) -> None:
    first: dict[tuple[str, str], tuple[Path, Result]] = {}
    for path, result in found:
        other_path, other = first.setdefault((result.task, result.label), (path, result))
        if keys := _differing_keys(other, result, WHICH_RUNS):
            raise DataError(
                f"{other_path} and {path} are runs of one method with different settings ({', '.join(keys)}): "
                "delete the file with the old settings, or repeat the run with the new ones."
            )


def _differing_versions(task: str, runs: Sequence[Result]) -> Iterator[str]:
    used = {f"versions of {name}": [str(run.versions.get(name)) for run in runs] for name in PACKAGES}
    # Processors with different vector instructions round differently.
    used["processors"] = [run.machine["capability"] for run in runs if "capability" in run.machine]
    for what, values in used.items():
        if len(count := Counter(values)) > 1:
            several = ", ".join(f"{value} ({number} runs)" for value, number in sorted(count.items()))
            yield f"{task}: the runs used different {what}: {several}."


def _differing_settings(task: str, runs: Sequence[Result]) -> Iterator[str]:
    rows = {run.label: run for run in runs}
    first = rows.get("random", runs[0])
    for label, run in rows.items():
        if keys := _differing_keys(first, run, WHICH_RUNS | PER_METHOD):
            yield f"{task}: {label} and {first.label} ran with different settings: {', '.join(keys)}."


def _differing_seeds(task: str, runs: Sequence[Result]) -> Iterator[str]:
    seeds = {label: {run.seed for run in runs if run.label == label} for label in {run.label for run in runs}}
    for reference in (name for name in REFERENCES if name in seeds):
        for label, own in sorted(seeds.items()):
            if 0 < (common := len(own & seeds[reference])) < len(own):
                yield f"{task}: {label} is compared with {reference} at {common} of its {len(own)} seeds."
