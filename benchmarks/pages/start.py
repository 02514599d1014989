"""A start along the gradient: the default, whose kept adapters do not start at random."""

from collections.abc import Iterator
from dataclasses import replace

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference
from weightlora.train.result import Result

from ..decision import CANDIDATES, LORA, PEFT_DEFAULT, SECOND
from ..results import Runs, by_seed, losses
from .points import complete_tasks
from .runs import runs_in
from .tables import table
from .tuned import PROBE, SEEDS, TASKS
from .untuned import ALONG, SAME, runs_of
from .winner import counted

LABEL = "along-gradient"
SAME_RATE = "probe at the same rate"
"""Not every task has such runs."""
REFERENCES = {
    SAME_RATE: "the default at the same rate",
    PROBE: "the default",
    CANDIDATES[PROBE].alike: "random sets",
    PEFT_DEFAULT: "PEFT's list",
    LORA: "LoRA on all modules",
}


def start() -> str:
    """A row for each reference: on how many of the complete tasks the loss is significantly lower, and higher."""
    runs = _runs()
    rows = [["against", "the default, started at random", "the default, started along the gradient"]]
    tasks = _complete(runs)
    for reference, words in REFERENCES.items():
        rows.append([words])
        for label in (PROBE, LABEL):
            found = {task: paired(losses(runs[task, label]), losses(runs[task, reference])) for task in tasks}
            rows[-1].append("" if label == PROBE and reference in (PROBE, SAME_RATE) else counted(found))
    return table(rows)


def start_by_task() -> str:
    """A row for each complete task: losses and metrics minus those of each reference."""
    runs = _runs()
    heads = [f"minus that of {words}" for words in REFERENCES.values()]
    compared = (SAME_RATE, PROBE, LORA)
    rows = [["task", f"loss {heads[0]}", *heads[1:], f"metric {heads[0]}", heads[1], heads[-1]]]
    for task in _complete(runs):
        own = runs[task, LABEL]
        values = {name: {seed: run.value for seed, run in runs[task, name].items()} for name in (LABEL, *compared)}
        rows.append([task, *(difference(paired(losses(own), losses(runs[task, name]))) for name in REFERENCES)])
        rows[-1] += [difference(paired(values[LABEL], values[name])) for name in compared]
    return table(rows)


def start_untuned() -> str:
    """A row for each task of the study of LoRA's rate: minus the default and LoRA on all modules, all at that rate."""
    own, default = (runs_of(way) for way in (ALONG, SAME))
    rows = [
        ["task", *(f"{what} minus {whose}" for what in ("loss", "metric") for whose in ("the default's", "LoRA's"))]
    ]
    for task in complete_tasks(own, TASKS, {PROBE, LORA}, SEEDS):
        references = (default[task, PROBE], own[task, LORA])
        rows.append([task, *(difference(paired(losses(own[task, PROBE]), losses(runs))) for runs in references)])
        values = [{seed: run.value for seed, run in runs.items()} for runs in (own[task, PROBE], *references)]
        rows[-1] += [difference(paired(values[0], others)) for others in values[1:]]
    return table(rows)


def _runs() -> Runs:
    """The runs of the tasks and seeds of the main comparison."""
    return by_seed(run for run in _labelled() if run.seed < SECOND.seeds.get(run.task, 0))


def _labelled() -> Iterator[Result]:
    """All runs, and those of the default at the rate that the start has on their task, once more under that label."""
    every = [run for study in ("", "start") for run in runs_in(study)]
    rates = {run.task: run.settings["learning_rate"] for run in every if run.label == LABEL}
    yield from every
    for run in (*every, *runs_in("rates")):
        if run.label in (PROBE, f"{PROBE}-2e-3") and run.settings["learning_rate"] == rates.get(run.task):
            yield replace(run, label=SAME_RATE)


def _complete(runs: Runs) -> list[str]:
    needed = {LABEL, *REFERENCES} - {SAME_RATE}
    return [task for task, count in SECOND.seeds.items() if complete_tasks(runs, [task], needed, range(count))]
