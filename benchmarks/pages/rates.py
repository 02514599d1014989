"""Whether the differences between the methods are due to their modules or to their learning rates."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from weightlora.compare.statistics import interval, paired
from weightlora.compare.tables import difference, markdown_table, with_interval
from weightlora.train.result import Result

from ..results import Runs, by_seed, losses
from .points import SEEDS, complete_tasks, missing
from .winner import counted

TASKS = ("rotten-tomatoes-all", "vader-tweets-all", "film-reviews", "spam", "supersenses", "imdb-all")
RATES = (0.001, 0.002)
LABELS = {
    "probe": "the probe",
    "random-like-probe": "random sets of the same sizes",
    "peft-default": "PEFT's default list",
    "lora": "LoRA on all modules",
}
PROBE, *REFERENCES = LABELS
Differences = Mapping[str, Mapping[str, Mapping[str, Any] | None]]
"""Which rates -> task -> the probe's loss minus that of a reference."""
LOWER_LOSS = "each at the better of the two"
INTRODUCTION = (
    "The probe, random sets of the same sizes, PEFT's default list and LoRA on all modules at two learning rates: "
    "MiniLM-L6 with 37 modules, five seeds. In the main comparison, the probe and LoRA ran at 0.001 and the others at "
    "0.002, the rates that tuning on Rotten Tomatoes preferred. The tables have held-out losses, and the loss of the "
    'probe minus the losses of the others, paired by seed, with 95 % intervals. "Each at the better of the two" '
    "takes the rate of each method from the test split of the task, so it is only a bound. The plan was written down "
    "before the runs (`benchmarks/quality/rates/DECISION.md`); LoRA at 0.002 was added after the other runs."
)


def render_rates_markdown(side: Iterable[Result], main: Iterable[Result]) -> str:
    """The page.

    Args:
        side: Runs at the rate that the main comparison does not have; their labels end in it.
        main: Runs of the main comparison.
    """
    runs = by_seed(
        replace(run, label=_at(run.label.removesuffix("-1e-3").removesuffix("-2e-3"), run.settings["learning_rate"]))
        for run in (*main, *side)
        if run.seed in SEEDS
    )
    tasks = complete_tasks(runs, TASKS, [_at(method, rate) for method in LABELS for rate in RATES])
    parts = ["# The same learning rate for all", INTRODUCTION, *missing(TASKS, tasks)]
    if tasks:
        found = {method: _differences(runs, tasks, method) for method in REFERENCES}
        parts += [_said(found), _losses_table(runs, tasks), _differences_table(found, tasks)]
    return "\n\n".join(parts) + "\n"


def _at(method: str, rate: float) -> str:
    """The label of a method at a rate."""
    return f"{method}, {rate}"


def _differences(runs: Runs, tasks: list[str], reference: str) -> Differences:
    def best(task: str, method: str) -> dict[int, float]:
        return min((losses(runs[task, _at(method, rate)]) for rate in RATES), key=lambda one: fmean(one.values()))

    def at(task: str, rate: float) -> dict[str, Any] | None:
        return paired(*(losses(runs[task, _at(method, rate)]) for method in (PROBE, reference)))

    found = {f"both at {rate}": {task: at(task, rate) for task in tasks} for rate in RATES}
    return {**found, LOWER_LOSS: {task: paired(best(task, PROBE), best(task, reference)) for task in tasks}}


def _said(found: Mapping[str, Differences]) -> str:
    return "\n".join(
        f"- Against {LABELS[reference]}, {which}: significantly {counted(by_task)}."
        for reference, comparisons in found.items()
        for which, by_task in comparisons.items()
    )


def _losses_table(runs: Runs, tasks: list[str]) -> str:
    columns = {_at(method, rate): _at(words, rate) for method, words in LABELS.items() for rate in RATES}
    rows = [
        [task, *(with_interval(interval([*losses(runs[task, label]).values()])) for label in columns)]
        for task in tasks
    ]
    return markdown_table(["loss of", *columns.values()], rows)


def _differences_table(found: Mapping[str, Differences], tasks: list[str]) -> str:
    header = ["loss minus that of", "rates", *tasks]
    rows = [
        [LABELS[reference], which, *map(difference, by_task.values())]
        for reference, comparisons in found.items()
        for which, by_task in comparisons.items()
    ]
    return markdown_table(header, rows)
