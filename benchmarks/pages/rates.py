"""Whether the differences between the methods are due to their modules or to their learning rates."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from weightlora.compare.statistics import interval, paired
from weightlora.compare.tables import difference, markdown_table, with_interval
from weightlora.train.result import Result

from .points import SEEDS
from .winner import counted

__all__ = ["render_rates_markdown"]

TASKS = ("rotten-tomatoes-all", "vader-tweets-all", "film-reviews", "spam", "supersenses", "imdb-all")
RATES = (0.001, 0.002)
LABELS = {
    "probe": "the probe",
    "random-like-probe": "random sets of the same sizes",
    "peft-default": "PEFT's default list",
    "lora": "LoRA on all modules",
}
PROBE, *REFERENCES = LABELS
PLANNED_FIRST = tuple(LABELS)[:3]
"""A task is on the page if these are complete."""
LOWER_LOSS = "each at the better of the two"
INTRODUCTION = (
    "The probe, random sets of the same sizes, PEFT's default list and LoRA on all modules at two learning rates: "
    "MiniLM-L6 with 37 modules, five seeds. In the main comparison, the probe and LoRA ran at 0.001 and the others at "
    "0.002, the rates that tuning on Rotten Tomatoes preferred. The tables have held-out losses, and the loss of the "
    'probe minus the losses of the others, paired by seed, with 95 % intervals. "Each at the better of the two" '
    "takes the rate of each method from the test split of the task, so it is only a bound. The plan was written down "
    "before the runs (`benchmarks/quality/rates/DECISION.md`); LoRA at 0.002 was added after the other runs."
)

Losses = Mapping[int, float]


def render_rates_markdown(side: Iterable[Result], main: Iterable[Result]) -> str:
    """The page; empty where no run is stored.

    Args:
        side: Runs at the rate that the main comparison does not have.
        main: Runs of the main comparison.
    """
    if not (own := list(side)):
        return ""
    losses: defaultdict[tuple[str, str, float], dict[int, float]] = defaultdict(dict)
    for run in (*main, *own):
        method, rate = run.label.removesuffix("-1e-3").removesuffix("-2e-3"), run.settings.get("learning_rate")
        if run.task in TASKS and method in LABELS and rate in RATES and run.seed in SEEDS:
            losses[run.task, method, rate][run.seed] = run.held_out_loss
    tasks = [task for task in TASKS if _is_complete(losses, task)]
    absent = [task for task in TASKS if task not in tasks]
    parts = ["# The same learning rate for all", INTRODUCTION]
    if absent:
        parts.append(f"Runs are missing of {', '.join(absent)}.")
    if tasks:
        compared = {one: [task for task in tasks if _has_all(losses, task, one)] for one in REFERENCES}
        found = {one: _differences(losses, those, one) for one, those in compared.items() if those}
        parts += [_said(found), _losses_table(losses, tasks), _differences_table(found, tasks)]
    return "\n\n".join(parts) + "\n"


def _is_complete(losses: Mapping[tuple[str, str, float], Losses], task: str) -> bool:
    return all(_has_all(losses, task, method) for method in PLANNED_FIRST)


def _has_all(losses: Mapping[tuple[str, str, float], Losses], task: str, method: str) -> bool:
    return all(len(losses.get((task, method, rate), ())) == len(SEEDS) for rate in RATES)


def _differences(
    losses: Mapping[tuple[str, str, float], Losses], tasks: list[str], reference: str
) -> dict[str, dict[str, Any]]:
    """Which rates -> task -> the probe's loss minus that of the reference."""

    def best(task: str, method: str) -> Losses:
        return min((losses[task, method, rate] for rate in RATES), key=lambda one: fmean(one.values()))

    at = {
        f"both at {rate}": {task: paired(losses[task, PROBE, rate], losses[task, reference, rate]) for task in tasks}
        for rate in RATES
    }
    return {**at, LOWER_LOSS: {task: paired(best(task, PROBE), best(task, reference)) for task in tasks}}


def _said(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    return "\n".join(
        counted(f"{LABELS[reference]}, {which}", by_task)
        for reference, comparisons in found.items()
        for which, by_task in comparisons.items()
    )


def _losses_table(losses: Mapping[tuple[str, str, float], Losses], tasks: list[str]) -> str:
    header = ["loss of", *(f"{words}, {rate}" for words in LABELS.values() for rate in RATES)]
    rows = [[task, *(_mean(losses, task, name, rate) for name in LABELS for rate in RATES)] for task in tasks]
    return markdown_table(header, rows)


def _mean(losses: Mapping[tuple[str, str, float], Losses], task: str, name: str, rate: float) -> str:
    found = losses.get((task, name, rate), {})
    return with_interval(interval([*found.values()])) if len(found) == len(SEEDS) else ""


def _differences_table(found: Mapping[str, Mapping[str, Mapping[str, Any]]], tasks: list[str]) -> str:
    header = ["loss minus that of", "rates", *tasks]
    rows = [
        [LABELS[reference], which, *(difference(by_task[task]) if task in by_task else "" for task in tasks)]
        for reference, comparisons in found.items()
        for which, by_task in comparisons.items()
    ]
    return markdown_table(header, rows)
