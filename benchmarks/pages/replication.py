"""The default at LoRA's rate on new seeds, against references at rates of their own."""

from statistics import fmean

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from ..decision import LORA
from ..results import by_seed
from .runs import runs_in
from .tables import table
from .tuned import PROBE, TASKS
from .winner import CLOSE, LORA_IN_WORDS, Worth, corrected, counted, points_between, references_of, signed, weigh

__all__ = ["SEEDS", "replication", "replication_by_task", "weigh_replication"]

SEEDS = range(60, 65)


def weigh_replication() -> Worth:
    """What the default is worth there, against each reference."""
    return weigh(by_seed(runs_in("replication")), PROBE, dict.fromkeys(TASKS, SEEDS))


def replication() -> str:
    """A row for each reference: on how many tasks the default is better and worse, and how the metrics compare."""
    runs, worth = by_seed(runs_in("replication")), weigh_replication()
    rows = [["against", "tasks", "corrected", "metric minus its own", "level"]]
    for words, by_task in worth.versus.items():
        label = references_of(PROBE)[words]
        points = [
            found for task in TASKS if (found := points_between(runs[task, PROBE], runs[task, label])) is not None
        ]
        rows.append(
            [
                words,
                counted(by_task),
                "better on {}, worse on {}".format(*corrected(by_task, worth.seeds)),
                f"{signed(fmean(points))} points",
                f"{sum(found >= -CLOSE for found in points)} of {len(points)} tasks",
            ]
        )
    return table(rows)


def replication_by_task() -> str:
    """A row for each task: the loss minus that of each reference, and the metric minus LoRA's."""
    runs, worth = by_seed(runs_in("replication")), weigh_replication()
    losses = (f"loss minus that of {words}" for words in worth.versus)
    rows = [["task", "rate", *losses, f"metric minus that of {LORA_IN_WORDS}"]]
    for task in TASKS:
        (rate,) = {run.settings["learning_rate"] for run in runs[task, PROBE].values()}
        values = ({seed: run.value for seed, run in runs[task, label].items()} for label in (PROBE, LORA))
        cells = (difference(by_task[task]) for by_task in worth.versus.values())
        rows.append([task, f"{rate:g}", *cells, difference(paired(*values))])
    return table(rows)
