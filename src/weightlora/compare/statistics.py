"""Means, 95 % intervals and paired differences of runs over seeds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.preprocessing import MultiLabelBinarizer

from ..errors import DataError
from ..train.result import Result

CONFIDENCE = 0.95


def summarize(results: Iterable[Result], references: Sequence[str]) -> dict[str, Any]:
    """Means, intervals and paired differences: `{"tasks": {task: {label: {...}}}}`, rows sorted by loss.

    `ci` is the half-width of the 95 % t-interval. It is None for one seed. `vs_<reference>` is the difference in loss
    (row minus reference) over the common seeds. Its `wins` is the number of seeds at which the row has the lower loss.
    It is None for the reference itself and without a common seed. `trainable_parameters` is the mean over seeds,
    rounded. `jaccard` is the mean overlap of the `kept` of two seeds. It is None for one seed, and where a run has no
    `kept`.

    Args:
        results: The runs.
        references: Labels of the rows that the others are compared with.

    Raises:
        DataError: If a seed occurs twice in a row, or runs of one task name different metrics.
    """
    runs: defaultdict[str, defaultdict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        runs[result.task][result.label].append(result)
    return {"tasks": {task: _summarize_task(task, rows, references) for task, rows in sorted(runs.items())}}


def _summarize_task(task: str, rows: Mapping[str, Sequence[Result]], references: Sequence[str]) -> dict[str, Any]:
    losses = {label: {run.seed: run.held_out_loss for run in runs} for label, runs in rows.items()}
    if twice := [label for label, runs in rows.items() if len(losses[label]) < len(runs)]:
        raise DataError(f"{task}: two results of one seed of {', '.join(twice)}: delete one of them.")
    metric, *others = sorted({run.metric for runs in rows.values() for run in runs})
    if others:
        raise DataError(f"{task}: the runs name different metrics: {', '.join([metric, *others])}.")
    entries: dict[str, dict[str, Any]] = {
        label: {
            "seeds": len(runs),
            "loss": interval([run.held_out_loss for run in runs]),
            "metric": {"name": metric, **interval([run.value for run in runs])},
            "trainable_parameters": round(float(np.mean([run.adapter_parameters_after for run in runs]))),
            **{
                key_of(name): None if name == label else paired(losses[label], losses.get(name, {}))
                for name in references
            },
            "jaccard": jaccard([run.kept for run in runs]),
        }
        for label, runs in rows.items()
    }
    return dict(sorted(entries.items(), key=lambda item: (item[1]["loss"]["mean"], item[0])))


def key_of(reference: str) -> str:
    """Where a row has its difference from a reference: `vs_peft_default` for `peft-default`."""
    return f"vs_{reference.replace('-', '_')}"


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean, and the half-width of the 95 % t-interval as `ci` (None for one value)."""
    count = len(values)
    ci = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * stats.sem(values)) if count > 1 else None
    return {"mean": float(np.mean(values)), "ci": ci}


def paired(losses: Mapping[int, float], reference: Mapping[int, float]) -> dict[str, Any] | None:
    """Differences at the common seeds, losses minus reference: mean, `ci` and `wins`. None without a common seed.

    Args:
        losses, reference: Seed -> loss.
    """
    if not (seeds := sorted(losses.keys() & reference.keys())):
        return None
    differences = [losses[seed] - reference[seed] for seed in seeds]
    return {**interval(differences), "wins": sum(difference < 0 for difference in differences)}


def excludes_zero(versus: Mapping[str, Any] | None) -> bool:
    """Whether the 95 % interval of a paired difference excludes 0. False where there is no interval."""
    return versus is not None and versus["ci"] is not None and abs(versus["mean"]) > versus["ci"]


def jaccard(kept: Sequence[Sequence[str] | None]) -> float | None:
    """Mean Jaccard overlap over pairs of sets. None for a single set, and where one is missing."""
    sets = [names for names in kept if names is not None]
    if len(sets) < max(2, len(kept)):
        return None
    return float(1 - pdist(MultiLabelBinarizer().fit_transform(sets).astype(bool), "jaccard").mean())
