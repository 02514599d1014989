"""What each rule would choose from the stored evidence, and how well seeds agree. Nothing is trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from weightlora.compare.statistics import jaccard
from weightlora.compare.tables import escape_markdown, markdown_table
from weightlora.errors import WeightLoraError
from weightlora.train.result import Result

from ..depth import THIRDS, thirds_of_depth
from ..figures.movement import Movement
from ..methods.scores import RULES, choose

PICTURE = (
    "![share of the update credit that each third of the layers gains, by optimizer step](movement.png)\n\n"
    "The picture shows which third of the layers gains the update credit in each step: LoRA on all modules at its own "
    "learning rate, mean over seeds."
)
TEXT = (
    "The tables compare rules by what they would choose after T steps. Each cell has the mean Jaccard overlap of the "
    "sets of two seeds (1 means equal sets), and in brackets the mean place of the chosen adapters in the model (0 "
    "means all at the input, 1 all at the output)."
)


def render_choices_markdown(results: Sequence[Result]) -> str:
    """One table per task, with one row per rule and one column per T; empty without a run that recorded evidence.

    Args:
        results: As they were loaded. Those with `evidence` count.
    """
    parts = []
    for task, runs in _told(results).items():
        steps = _steps(runs)
        keep = runs[0].settings["keep"]
        rows = [[rule, *(_cell(runs, rule, step, keep) for step in steps)] for rule in RULES]
        parts += [f"## {escape_markdown(task)}: {keep} of {len(runs[0].names or ())}, {len(runs)} seeds"]
        parts += [markdown_table(["rule", *(f"T = {step}" for step in steps)], rows)]
    return "\n\n".join(["# What rules would choose", PICTURE, TEXT, *parts]) + "\n" if parts else ""


def movements(results: Sequence[Result]) -> dict[str, Movement]:
    """Task -> which third of the layers gains the credit when. Modules outside the layers do not count.

    Args:
        results: As they were loaded. Those with `evidence` count.
    """
    return {task: _movement(runs) for task, runs in _told(results).items()}


def _movement(runs: Sequence[Result]) -> Movement:
    steps, thirds = _steps(runs), np.array(thirds_of_depth(runs[0].names or ()))
    credit = np.mean([[_evidence(run)[str(step)]["credit"] for step in steps] for run in runs], axis=0)
    gained = np.diff([credit[:, thirds == third].sum(1) for third in THIRDS], prepend=0).clip(min=0)
    return Movement([0, *steps], gained / gained.sum(0), runs[0].settings["select_steps"])


def _told(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Task -> the runs that recorded evidence."""
    told = [result for result in results if _evidence(result) and result.sizes]
    return {task: [run for run in told if run.task == task] for task in sorted({run.task for run in told})}


def _evidence(run: Result) -> dict[str, Any]:
    """Step -> record. Without the seconds that a probe took, which are stored beside them."""
    return {step: record for step, record in (run.evidence or {}).items() if step.isdecimal()}


def _steps(runs: Sequence[Result]) -> list[int]:
    """The steps at which all runs recorded evidence."""
    return sorted(set.intersection(*(set(map(int, _evidence(run))) for run in runs)))


def _cell(runs: Sequence[Result], rule: str, step: int, keep: int) -> str:
    """Overlap and mean place. Empty where the evidence was not recorded at that step."""
    names = list(runs[0].names or ())
    sizes = dict(zip(names, runs[0].sizes or (), strict=True))
    try:
        chosen = [choose(_evidence(run)[str(step)], sizes, rule, keep) for run in runs]
    except WeightLoraError:
        return ""
    place = float(np.mean([names.index(name) for kept in chosen for name in kept])) / (len(names) - 1)
    overlap = jaccard(chosen)
    return f"({place:.2f})" if overlap is None else f"{overlap:.2f} ({place:.2f})"
