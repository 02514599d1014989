"""What each rule would have chosen from the stored evidence, and whether seeds agree on it. Nothing is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .rivals import RULES, choose
from .summary import escape_markdown, jaccard, markdown_table

__all__ = ["render_choices_markdown"]

TEXT = (
    "Each cell: mean Jaccard overlap of the sets that two seeds would choose (1: equal sets), and in brackets the "
    "mean place of the chosen adapters in the model (0: all at the input, 1: all at the output)."
)


def render_choices_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """A table a task, a row a rule, a column a selection phase T.

    Args:
        results: As they were loaded; those with `evidence` count.
    """
    parts = ["# What rules would choose", TEXT]
    told = [result for result in results if "evidence" in result and result.get("sizes")]
    for task in sorted({result["task"] for result in told}):
        runs = [result for result in told if result["task"] == task]
        steps = sorted(set.intersection(*(set(map(int, run["evidence"])) for run in runs)))
        keep = runs[0]["experiment"]["keep"]
        rows = [[rule, *(_cell(runs, rule, step, keep) for step in steps)] for rule in RULES]
        parts += [f"## {escape_markdown(task)}: {keep} of {len(runs[0]['names'])}, {len(runs)} seeds"]
        parts += [markdown_table(["rule", *(f"T = {step}" for step in steps)], rows)]
    return "\n\n".join(parts) + "\n"


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
