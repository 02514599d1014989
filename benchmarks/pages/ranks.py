"""Where to spend parameters: higher ranks, rsLoRA's scaling, and ranks in proportion to the probe's scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weightlora.compare.statistics import excludes_zero, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from ..results import by_seed, losses
from .points import SEEDS, complete_tasks, missing

TASKS = ("rotten-tomatoes-all", "vader-tweets-all")
PAIRS = {
    ("wide", "lora"): "",
    ("wide", "probe"): "",
    ("wide-rslora", "wide"): "The scaling of rsLoRA",
    ("chosen-proportional", "wide"): "Ranks in proportion, of the chosen modules",
    ("proportional", "lora"): "Ranks in proportion, of all modules",
    ("proportional-quarter", "lora-equal"): "Ranks in proportion, of all modules, with a quarter of the parameters",
    ("proportional-quarter", "probe"): "",
}
"""(method, what it is compared with) -> what is new in it, where it may enter the package."""
INTRODUCTION = (
    "MiniLM-L6 with 37 modules, 300 steps, five seeds. `wide` are the modules that the probe chose within a quarter "
    "of the parameters, at the rank that has as many parameters as LoRA of rank 8 on all modules. The table has "
    "paired differences in held-out loss, with 95 % intervals. The plan, and the rule for what enters the package, "
    "were written down before the runs (`benchmarks/quality/ranks/DECISION.md`)."
)


def render_ranks_markdown(side: Iterable[Result], main: Iterable[Result]) -> str:
    """The page.

    Args:
        side: Runs of this comparison.
        main: Runs of the main comparison, which has the references.
    """
    runs = by_seed(run for run in (*main, *side) if run.seed in SEEDS)
    parts = ["# Where to spend parameters", INTRODUCTION]
    if absent := missing(TASKS, complete_tasks(runs, TASKS, {label for pair in PAIRS for label in pair})):
        return "\n\n".join([*parts, *absent]) + "\n"
    rows, said = [], []
    for (method, reference), what in PAIRS.items():
        found = [paired(losses(runs[task, method]), losses(runs[task, reference])) for task in TASKS]
        rows.append([method, reference, *map(difference, found)])
        if what:
            said.append(f"- {what}: {_verdict(found)}")
    table = markdown_table(["loss of", "minus that of", *TASKS], rows)
    return "\n\n".join([*parts, "\n".join(said), table]) + "\n"


def _verdict(differences: Sequence[Mapping[str, Any] | None]) -> str:
    clear = [found["mean"] for found in differences if found is not None and excludes_zero(found)]
    better, worse = (sum(sign * mean > 0 for mean in clear) for sign in (-1, 1))
    enters = "it enters the package" if better and not worse else "it does not enter the package"
    return f"significantly better on {better} of {len(differences)} tasks, worse on {worse}; {enters}."
