"""The default at LoRA's rate on new seeds, against references at rates of their own."""

from collections.abc import Iterable, Mapping
from statistics import fmean

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from ..results import Runs, by_seed, losses
from .runs import runs_in
from .tables import table
from .tuned import PROBE, TASKS
from .winner import CLOSE, LORA_IN_WORDS, Worth, corrected, counted, points_between, references_of, signed, weigh

SEEDS = range(60, 65)


def on_new_seeds() -> Runs:
    """The runs of these seeds. A lower rank on all modules ran with ranks in proportion, at its own tuned rates."""
    return by_seed(run for study in ("replication", "proportional") for run in runs_in(study))


def weigh_replication() -> Worth:
    """What the default is worth there, against each reference."""
    return weigh(on_new_seeds(), PROBE, dict.fromkeys(TASKS, SEEDS))


def replication() -> str:
    """A row for each reference: on how many tasks the default is better and worse, and how the metrics compare."""
    return counts(on_new_seeds(), PROBE, _references())


def replication_by_task() -> str:
    """A row for each task: the loss minus that of each reference, and the metric minus LoRA's."""
    references = _references()
    metrics = {words: label for words, label in references.items() if words == LORA_IN_WORDS}
    return by_task(on_new_seeds(), TASKS, PROBE, references, metrics)


def _references() -> dict[str, str]:
    every = references_of(PROBE)
    return {words: every[words] for words in weigh_replication().versus}


def counts(runs: Runs, label: str, references: Mapping[str, str]) -> str:
    """A row for each reference: on how many tasks a method is better and worse, and how the metrics compare.

    Args:
        runs: Those of the method and of the references, on all tasks.
        label: Label of the method's runs.
        references: Words -> label of what it is compared with.
    """
    rows = [["against", "tasks", "corrected", "metric minus its own", "level"]]
    for words, other in references.items():
        versus = {task: paired(losses(runs[task, label]), losses(runs[task, other])) for task in TASKS}
        points = [
            found for task in TASKS if (found := points_between(runs[task, label], runs[task, other])) is not None
        ]
        rows.append(
            [
                words,
                counted(versus),
                "better on {}, worse on {}".format(*corrected(versus, dict.fromkeys(TASKS, SEEDS))),
                f"{signed(fmean(points))} points",
                f"{sum(found >= -CLOSE for found in points)} of {len(points)} tasks",
            ]
        )
    return table(rows)


def by_task(
    runs: Runs, tasks: Iterable[str], label: str, references: Mapping[str, str], metrics: Mapping[str, str]
) -> str:
    """A row for each task: its rate, the loss of a method minus that of references, and the metric minus that of some.

    Args:
        runs, label: As in `counts`.
        tasks: Those that have a row.
        references: Words -> label of those whose losses are compared.
        metrics: Those whose metrics are.
    """
    those = [f"loss minus that of {words}" for words in references]
    rows = [["task", "rate", *those, *(f"metric minus that of {words}" for words in metrics)]]
    for task in tasks:
        own = runs[task, label]
        (rate,) = {run.settings["learning_rate"] for run in own.values()}
        compared = [paired(losses(own), losses(runs[task, other])) for other in references.values()]
        values = [{seed: run.value for seed, run in runs[task, one].items()} for one in (label, *metrics.values())]
        compared += [paired(values[0], others) for others in values[1:]]
        rows.append([task, f"{rate:g}", *map(difference, compared)])
    return table(rows)
