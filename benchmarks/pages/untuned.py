"""The learning rate of LoRA, kept: what the default is worth where nothing is tuned for it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference
from weightlora.train.result import Result

from ..decision import CANDIDATES, LORA, PEFT_DEFAULT
from ..results import Runs, by_seed, losses
from .points import complete_tasks
from .reliability import LEARNED
from .reliability import TASK as FILMS
from .runs import runs_in
from .tables import table
from .tuned import PROBE, SEEDS, TASKS
from .winner import CLOSE, counted, points_between, signed

REFERENCES = (CANDIDATES[PROBE].alike, PEFT_DEFAULT, LORA)


class Way(NamedTuple):
    """A learning rate for the probe, and for what it is compared with.

    Attributes:
        words: How tables call it.
        label: Label of the probe's runs, without what it says of the rate.
        multiple: The rate as a multiple of LoRA's; None for the one that tuning found.
    """

    words: str
    label: str
    multiple: int | None


SAME = Way("LoRA's", PROBE, 1)
ALONG = Way("LoRA's, started along the gradient", "along-gradient", 1)
WAYS = (
    Way("tuned at one seed", PROBE, None),
    SAME,
    Way("twice LoRA's", PROBE, 2),
    Way("LoRA's, 30 % of the parameters", "probe-30", 1),
    ALONG,
)


def untuned() -> str:
    """A row for each way whose runs are complete: against the references at its rate, over all tasks."""
    header = [
        "rate",
        "against random sets",
        "against PEFT's list",
        "against LoRA on all modules",
        "metric minus LoRA's",
    ]
    rows = [[*header, "level", "runs that do not learn"]]
    for way in WAYS:
        runs = runs_of(way)
        if not _complete(runs, PROBE, *TASKS):
            continue
        against = [
            counted({task: paired(losses(runs[task, PROBE]), losses(runs[task, label])) for task in TASKS})
            if _complete(runs, label, *TASKS) and (way.label == PROBE or label == LORA)  # of equal parameters
            else ""
            for label in REFERENCES
        ]
        points = [
            found for task in TASKS if (found := points_between(runs[task, PROBE], runs[task, LORA])) is not None
        ]
        level = f"{sum(found >= -CLOSE for found in points)} of {len(points)} tasks"
        own = [run for task in TASKS for run in runs[task, PROBE].values()]
        rows.append([way.words, *against, f"{signed(fmean(points))} points", level, f"{failures(own)} of {len(own)}"])
    return table(rows)


def untuned_by_task() -> str:
    """A row for each way whose runs are complete on a task: against LoRA on all modules."""
    rows = [["task", "rate", "value", "loss minus LoRA's", "metric minus LoRA's"]]
    every = [(way, runs_of(way)) for way in WAYS]
    for task in TASKS:
        for way, runs in every:
            if not _complete(runs, PROBE, task):
                continue
            own, lora = runs[task, PROBE], runs[task, LORA]
            (rate,) = {run.settings["learning_rate"] for run in own.values()}
            values = ({seed: run.value for seed, run in several.items()} for several in (own, lora))
            loss = difference(paired(losses(own), losses(lora)))
            rows.append([task, way.words, f"{rate:g}", loss, difference(paired(*values))])
    return table(rows, left=2)


def _complete(runs: Runs, label: str, *tasks: str) -> bool:
    return complete_tasks(runs, tasks, {label, LORA}, SEEDS) == [*tasks]


def runs_of(way: Way) -> Runs:
    """The runs at the rate of a way. Those of its probe are called `probe`, and LoRA's are those that were tuned."""
    return by_seed(_relabelled(way))


def _relabelled(way: Way) -> Iterator[Result]:
    rates = {run.task: run.settings["learning_rate"] for run in runs_in("tuned") if run.label == LORA}
    for run in (run for study in ("tuned", "shares", "untuned") for run in runs_in(study) if run.seed in SEEDS):
        name = run.label.removesuffix("-1x").removesuffix("-2x")
        if way.multiple is None:
            fits = name == run.label
        else:
            fits = run.settings["learning_rate"] == way.multiple * rates[run.task]
        if run.label == LORA:
            yield run
        elif fits and name in (way.label, *REFERENCES):
            yield replace(run, label=PROBE if name == way.label else name)


def failures(runs: Iterable[Result]) -> int:
    """How many runs end at a guess, or on film reviews below the accuracy that tells good from bad ones."""
    return sum(run.hardly_learned or (run.task == FILMS and run.value < LEARNED) for run in runs)
