"""Ranks in proportion to the probe's scores, at LoRA's rate, on the tasks and seeds of the replication."""

from ..decision import CANDIDATES, LORA, LOWER_RANK, PEFT_DEFAULT
from ..results import Runs
from .points import complete_tasks
from .replication import SEEDS, by_task, counts, on_new_seeds
from .tuned import PROBE, TASKS
from .winner import LORA_IN_WORDS

PROPORTIONAL = "proportional-quarter"

REFERENCES = {
    "the default": PROBE,
    "random sets of the default's sizes": CANDIDATES[PROBE].alike,
    "PEFT's default list": PEFT_DEFAULT,
    "a lower rank on all modules": LOWER_RANK,
    LORA_IN_WORDS: LORA,
}
"""What it is compared with, in words, and the label of its runs."""


def proportional() -> str:
    """A row for each reference whose runs are complete: on how many tasks ranks in proportion are better and worse."""
    runs = on_new_seeds()
    return counts(runs, PROPORTIONAL, _complete(runs, REFERENCES))


def proportional_by_task() -> str:
    """A row for each task: losses and metrics minus those of the references with which nothing is left out."""
    runs = on_new_seeds()
    shown = {words: label for words, label in REFERENCES.items() if label in (PROBE, LOWER_RANK, LORA)}
    complete = _complete(runs, shown)
    return by_task(runs, TASKS, PROPORTIONAL, complete, complete)


def _complete(runs: Runs, references: dict[str, str]) -> dict[str, str]:
    return {
        words: label
        for words, label in references.items()
        if complete_tasks(runs, TASKS, {PROPORTIONAL, label}, SEEDS) == [*TASKS]
    }
