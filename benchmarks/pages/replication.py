"""The default at LoRA's rate on new seeds, against references at rates of their own."""

from collections.abc import Mapping
from statistics import fmean

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from ..decision import LORA
from ..results import Runs, by_seed, losses
from .points import complete_tasks
from .runs import runs_in
from .tables import table
from .tuned import PROBE, TASKS
from .winner import CLOSE, Worth, corrected, counted, points_between, references_of, weigh

__all__ = ["SEEDS", "replication", "replication_by_task", "weigh_replication"]

SEEDS = range(60, 65)
NONE = "No reference is complete yet."


def weigh_replication() -> Worth:
    """What the default is worth there, against each reference."""
    return weigh(by_seed(runs_in("replication")), PROBE, dict.fromkeys(TASKS, SEEDS))


def replication() -> str:
    """A row for each reference whose runs are complete: on how many tasks the default is better and worse."""
    runs = by_seed(runs_in("replication"))
    rows = [["against", "tasks", "corrected", "metric minus its own", "level"]]
    for words, label in _complete(runs).items():
        differences = {task: paired(losses(runs[task, PROBE]), losses(runs[task, label])) for task in TASKS}
        points = [
            found for task in TASKS if (found := points_between(runs[task, PROBE], runs[task, label])) is not None
        ]
        rows.append(
            [
                words,
                counted(differences),
                "better on {}, worse on {}".format(*corrected(differences, dict.fromkeys(TASKS, SEEDS))),
                f"{fmean(points):+.1f} points",
                f"{sum(found >= -CLOSE for found in points)} of {len(points)} tasks",
            ]
        )
    return table(rows) if rows[1:] else NONE


def replication_by_task() -> str:
    """A row for each task: the loss minus that of each complete reference."""
    runs = by_seed(runs_in("replication"))
    there = _complete(runs)
    rows = [["task", "rate", *(f"loss minus that of {words}" for words in there), *_metric_of_lora(there)]]
    for task in TASKS if there else ():
        own = runs[task, PROBE]
        (rate,) = {run.settings["learning_rate"] for run in own.values()}
        row = [task, f"{rate:g}"]
        row += [difference(paired(losses(own), losses(runs[task, label]))) for label in there.values()]
        if LORA in there.values():
            values = ({seed: run.value for seed, run in several.items()} for several in (own, runs[task, LORA]))
            row.append(difference(paired(*values)))
        rows.append(row)
    return table(rows) if there else NONE


def _complete(runs: Runs) -> dict[str, str]:
    """The references whose runs are all there, in words, and their labels."""
    return {
        words: label
        for words, label in references_of(PROBE).items()
        if complete_tasks(runs, TASKS, {PROBE, label}, SEEDS) == [*TASKS]
    }


def _metric_of_lora(there: Mapping[str, str]) -> list[str]:
    return [f"metric minus that of {words}" for words, label in there.items() if label == LORA]
