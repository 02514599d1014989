"""Runs that do not learn: how many of each method, on seeds of their own."""

import os
from pathlib import Path

from scipy.stats import fisher_exact

from weightlora.compare.statistics import interval, paired
from weightlora.compare.tables import difference, with_interval
from weightlora.train.result import Result

from ..figures.outcomes import draw_outcomes
from ..results import by_seed
from .points import complete_tasks
from .runs import runs_in
from .tables import table

TASK, SEEDS = "film-reviews", range(10, 25)
LEARNED = 0.65
"""The accuracy below which a run has not learned."""
METHODS = {
    "probe": "the default",
    "lora": "LoRA on all modules",
    "lora-half-rate": "LoRA on all modules, half the rate",
    "lora-warmup": "LoRA on all modules, longer warmup",
    "lora-half-rate-warmup": "LoRA on all modules, half the rate, longer warmup",
    "lora-quarter-rate": "LoRA on all modules, a quarter of the rate",
    "lora-equal": "rank 2 on all modules",
    "random-like-probe": "random sets of the default's sizes",
    "peft-default": "PEFT's default list",
}
"""Label -> its name. The others are compared with the first."""


def reliability() -> str:
    """A row for each method whose runs are complete; the header alone while the default's are not."""
    rows = [["method", "rate", "runs that do not learn", "p", "accuracy", "minus the default's", "loss"]]
    first: dict[int, Result] = {}
    for name, own in _complete_runs().items():
        first = first or own
        failed, usual = (sum(run.value < LEARNED for run in several.values()) for several in (own, first))
        p = fisher_exact([[failed, len(own) - failed], [usual, len(first) - usual]]).pvalue
        values, base = ({seed: run.value for seed, run in several.items()} for several in (own, first))
        (rate,) = {run.settings["learning_rate"] for run in own.values()}
        rows.append(
            [
                name,
                f"{rate:g}",
                f"{failed} of {len(own)}",
                "" if own is first else f"{p:.2g}",
                with_interval(interval([*values.values()])),
                "" if own is first else difference(paired(values, base)),
                with_interval(interval([run.held_out_loss for run in own.values()])),
            ]
        )
    return table(rows)


def draw_reliability(path: str | os.PathLike[str]) -> Path:
    """The accuracy of each of these runs."""
    rows = {name: [run.value for run in own.values()] for name, own in _complete_runs().items()}
    return draw_outcomes(rows, LEARNED, f"accuracy on {TASK}; behind each name: runs that do not learn", path)


def _complete_runs() -> dict[str, dict[int, Result]]:
    """The runs of each method that has all of them, by its name. None while the default has not."""
    runs = by_seed(run for run in runs_in("reliability") if run.seed in SEEDS)
    default = next(iter(METHODS))
    return {
        name: runs[TASK, label]
        for label, name in METHODS.items()
        if complete_tasks(runs, [TASK], {default, label}, SEEDS)
    }
