"""What the default is worth on Gemma 3, a second family of decoders, and which modules it keeps there."""

from collections.abc import Iterable

from weightlora.train.result import Result

from ..decision import LORA, PEFT_DEFAULT
from ..results import Runs, by_seed
from .kept import render_shares, share_of_seeds
from .points import complete_tasks, missing
from .tuned import METHODS, PROBE, render_methods
from .winner import render_winner

TASK = "gemma3-definitions"
SEEDS = range(3)
INTRODUCTION = (
    "The default on Gemma 3 270M, with 126 modules: language modelling of WordNet's definitions, 100 steps of four "
    "blocks of 64 tokens, three seeds. The validation split chooses the rate of each method "
    "([all rates](../tuning.md)). Differences are paired, with 95 % intervals. How it is measured was written down "
    "before the runs (`benchmarks/quality/gemma3/DECISION.md`)."
)


def probes_of(results: Iterable[Result]) -> list[Result]:
    """The probe's runs; none unless it has run at all seeds."""
    runs = _planned(results)
    return [*runs[TASK, PROBE].values()] if complete_tasks(runs, [TASK], [PROBE], SEEDS) else []


def render_gemma3_markdown(results: Iterable[Result]) -> str:
    """The page, about the methods that have run at all seeds."""
    runs = _planned(results)
    methods = {label: words for label, words in METHODS.items() if complete_tasks(runs, [TASK], [label], SEEDS)}
    parts = ["# A second family of decoders", INTRODUCTION, *missing(METHODS, methods)]
    if methods.keys() >= {PROBE, PEFT_DEFAULT, LORA}:
        kept = share_of_seeds([*runs[TASK, PROBE].values()])
        _, differences = render_winner(runs, PROBE, {TASK: SEEDS})
        parts += [differences, render_methods(runs, [TASK], methods), "## What the probe keeps"]
        parts += [f"![share of the seeds that kept each adapter]({TASK}-kept.png)", render_shares(kept)]
    return "\n\n".join(parts) + "\n"


def _planned(results: Iterable[Result]) -> Runs:
    return by_seed(run for run in results if run.seed in SEEDS)
