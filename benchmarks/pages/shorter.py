"""Fewer modules or fewer steps: the same time of training, spent in two ways."""

from typing import NamedTuple

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from ..results import by_seed, losses
from .points import LORA, complete_tasks
from .runs import runs_in
from .tables import table


class Way(NamedTuple):
    """A set of modules, and LoRA on all modules for as long.

    Attributes:
        task: The task of both.
        studies: Where their runs are.
        chosen: Label of the runs with fewer modules.
        shorter: Label of the runs with fewer steps.
        seeds: How many seeds each has.
    """

    task: str
    studies: tuple[str, ...]
    chosen: str
    shorter: str
    seeds: int


MINILM, DECODER = ("rotten-tomatoes-all", "vader-tweets-all", "film-reviews"), "smollm2-imdb-lm-float32"
WAYS = [
    *(Way(task, ("", "shorter"), "probe", "shorter-81", 5) for task in MINILM),
    *(Way(task, ("", "frontier", "shorter"), "within-60", "shorter-60", 5) for task in MINILM),
    *(Way(DECODER, ("decoder",), f"within-{share}", f"shorter-{share}", 3) for share in (80, 60)),
]


def fewer_steps() -> str:
    """A row for each complete way: both losses minus that of LoRA on all modules for all steps, and the difference."""
    rows = [["task", "fewer modules", "minus LoRA", "fewer steps", "minus LoRA", "fewer modules minus fewer steps"]]
    for way in WAYS:
        labels = (way.chosen, way.shorter, LORA)
        found = [run for study in way.studies for run in runs_in(study) if run.task == way.task]
        runs = by_seed([run for run in found if run.label in labels], but={"steps"})
        if complete_tasks(runs, [way.task], labels, range(way.seeds)):
            chosen, shorter, lora = (losses(runs[way.task, label]) for label in labels)
            (steps,) = {run.steps for run in runs[way.task, way.shorter].values()}
            versus = [paired(chosen, lora), paired(shorter, lora), paired(chosen, shorter)]
            of_chosen, of_shorter, both = map(difference, versus)
            rows.append([way.task, f"`{way.chosen}`", of_chosen, f"`{way.shorter}` ({steps})", of_shorter, both])
    return table(rows, left=2)
