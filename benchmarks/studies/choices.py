"""What each rule would have chosen from the stored evidence, and whether seeds agree on it. Nothing is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightlora.adapters import block_of

from ..figures.movement import Movement
from ..methods.rivals import RULES, choose
from ..summary import escape_markdown, jaccard, markdown_table

__all__ = ["movements", "render_choices_markdown"]

PICTURE = (
    "![share of the update credit that each third of the layers gains, by optimizer step](movement.png)\n\n"
    "LoRA on all modules at its own learning rate, mean over seeds: which third of the layers gains the update "
    "credit, step by step."
)
TEXT = (
    "Each cell: mean Jaccard overlap of the sets that two seeds would choose (1: equal sets), and in brackets the "
    "mean place of the chosen adapters in the model (0: all at the input, 1: all at the output)."
)


def render_choices_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """A table a task, a row a rule, a column a selection phase T; empty without a run that tells its evidence.

    Args:
        results: As they were loaded; those with `evidence` count.
    """
    parts = []
    for task, runs in _told(results).items():
        steps = _steps(runs)
        keep = runs[0]["experiment"]["keep"]
        rows = [[rule, *(_cell(runs, rule, step, keep) for step in steps)] for rule in RULES]
        parts += [f"## {escape_markdown(task)}: {keep} of {len(runs[0]['names'])}, {len(runs)} seeds"]
        parts += [markdown_table(["rule", *(f"T = {step}" for step in steps)], rows)]
    return "\n\n".join(["# What rules would choose", PICTURE, TEXT, *parts]) + "\n" if parts else ""


def movements(results: Sequence[Mapping[str, Any]]) -> dict[str, Movement]:
    """Task -> which third of the layers gains the credit when; modules outside a layer do not count.

    Args:
        results: As they were loaded; those with `evidence` count.
    """
    return {task: _movement(runs) for task, runs in _told(results).items()}


def _movement(runs: Sequence[Mapping[str, Any]]) -> Movement:
    steps, blocks = _steps(runs), [block_of(name) for name in runs[0]["names"]]
    credit = np.mean([[run["evidence"][str(step)]["credit"] for step in steps] for run in runs], axis=0)
    thirds = np.array_split([block for block in dict.fromkeys(blocks) if block], 3)
    gained = np.diff([credit[:, np.isin(blocks, third)].sum(1) for third in thirds], prepend=0).clip(min=0)
    return Movement([0, *steps], gained / gained.sum(0), runs[0]["experiment"]["select_steps"])


def _told(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Task -> the runs that tell their evidence."""
    told = [result for result in results if "evidence" in result and result.get("sizes")]
    return {task: [run for run in told if run["task"] == task] for task in sorted({run["task"] for run in told})}


def _steps(runs: Sequence[Mapping[str, Any]]) -> list[int]:
    """The steps at which all of them recorded."""
    return sorted(set.intersection(*(set(map(int, run["evidence"])) for run in runs)))


def _cell(runs: Sequence[Mapping[str, Any]], rule: str, step: int, keep: int) -> str:
    """Empty where the evidence was not gathered at that step."""
    names = list(runs[0]["names"])
    sizes = dict(zip(names, runs[0]["sizes"], strict=True))
    try:
        chosen = [choose(run["evidence"][str(step)], sizes, rule, keep) for run in runs]
    except ValueError:
        return ""
    place = float(np.mean([names.index(name) for kept in chosen for name in kept])) / (len(names) - 1)
    overlap = jaccard(chosen)
    return f"({place:.2f})" if overlap is None else f"{overlap:.2f} ({place:.2f})"
