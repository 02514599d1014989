"""The tables of docs/log.md: which stored runs each entry compares."""

from collections.abc import Callable, Iterable
from functools import partial
from statistics import fmean

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from .chance import chance
from .costs import TASKS
from .decoder_seeds import decoder_seeds
from .proportional import proportional, proportional_by_task
from .reliability import reliability
from .replication import replication, replication_by_task
from .runs import pool
from .shares import shares, shares_by_task
from .shorter import fewer_steps
from .start import start, start_by_task, start_untuned
from .tables import Pair, by_layer, compared, early, pairs, rates, table
from .untuned import untuned, untuned_by_task

ROTTEN, IMDB, TWEETS, SENTIMENT, _ = TASKS
ENDS = [f"weightlora-5-unbounded{suffix}" for suffix in ("-5e-4", "-5e-4-faster-2")]
WAYS_TO_GROW = [f"plus-rank-8-{way}" for way in ("random", "restart", "rounds-2", "rounds-3")]
SETTINGS = ("keep-18", "rank-2", "rounds-2", "rounds-3", "parameters", "select-20", "select-30", "select-120")
SCORES = (
    *("update-60", "leave-one-out-60", "gate-60", "next-credit-60", "credit-20", "credit-30", "gradient-60"),
    *("credit-per-parameter-60", "credit-times-update-60"),
)
CHOOSE_BEFORE = (
    *("fisher", "kappatune", "plop", "plop-lowest", "aletheia", "cka", "cka-first-token", "page", "page-in-blocks"),
)
RIVALS_ON = ("rotten-tomatoes-all", "vader-tweets-all")
OTHERS = ("mlp-only", "attention-only", "eva", "adalora", "dora")
HANDFUL_ON = (ROTTEN, TWEETS)
WAYS = {  # how five of 36 are chosen: the label of the runs on each task
    "at random": ("random-5", "random-5-2e-3"),
    "at random among the 12 MLP modules": ("random-mlp-5", "random-mlp-5-2e-3"),
    "update credit, at most 5/36 of the parameters": ("credit-60-5", "credit-60-5-2e-3"),
    "update credit, no bound on parameters": ("credit-60-5-unbounded", "credit-60-5-unbounded-2e-3"),
    "the same, chosen and trained in one run": (
        "weightlora-5-unbounded-5e-4-faster-2",
        "weightlora-5-unbounded-5e-4-faster-4",
    ),
    "(LoRA on all 36)": ("lora", "lora"),
}


def _each(task: str, labels: Iterable[str], reference: str) -> list[Pair]:
    """Several methods compared with one reference on one task."""
    return [Pair(task, label, reference) for label in labels]


COMPARISONS: dict[str, list[Pair]] = {
    "rivals": [pair for task in RIVALS_ON for pair in _each(task, CHOOSE_BEFORE + OTHERS, "probe")],
    "handful-choices": [
        Pair(ROTTEN, ENDS[1], ENDS[0]),
        *pairs([ROTTEN], "credit-60-5-unbounded", ("credit-60-5", "random-mlp-5", "lora")),
        *pairs([TWEETS], "credit-60-5-unbounded-2e-3", ("credit-60-5-2e-3", "random-mlp-5-2e-3", "lora")),
    ],
    "headroom": [
        Pair(ROTTEN, "best-9", "random"),
        *_each(ROTTEN, ("best-5", "weightlora-5", "weightlora-paper-5", "top-5"), "random-5"),
        Pair(ROTTEN, "best-5", "lora"),
        *_each(ROTTEN, ("weightlora-5", "weightlora-paper-5"), "top-5"),
    ],
    "late-sets": pairs((ROTTEN, TWEETS), "credit-60", ("random", "weightlora")),
    "lora": [*pairs(TASKS, "weightlora", ("lora",)), Pair(IMDB, "weightlora", "lora-5e-4")],
    "lower-rank": pairs(TASKS, "lora-equal", ("weightlora",)),
    "other-adapters": [
        *(pair for label in ("adalora", "eva", "top") for pair in pairs(TASKS, label, ("weightlora",))),
        *(pair for label in ("eva", "top") for pair in pairs(TASKS, label, ("random",))),
    ],
    "other-methods": [
        *_each(ROTTEN, ("kappa", "grad-norm", "last-layers", "dora", "rslora", "lokr", "vera"), "weightlora"),
        *_each(ROTTEN, ("loha", "full"), "weightlora"),
        *_each(ROTTEN, ("last-layers", "vera"), "random"),
        *_each(ROTTEN, ("dora", "loha"), "lora"),
        Pair(ROTTEN, "full", "loha"),
    ],
    "gates": pairs(TASKS, "weightlora-paper", ("weightlora",)),
    "size": [
        *_each(ROTTEN, ("random-mlp", "random-parameters", "weightlora-unbounded", "random-mlp-5"), "weightlora"),
        *_each(TWEETS, ("random-mlp", "random-mlp-1e-3", "random-mlp-5"), "weightlora"),
        *pairs([ROTTEN], "random-without-query-key", ("random", "weightlora")),
    ],
    "plus": pairs(TASKS, "weightlora-plus", ("weightlora", "lora", "lora-equal")),
    "plus-settings": _each(ROTTEN, WAYS_TO_GROW, "weightlora-plus"),
    "settings": [
        *_each(ROTTEN, [f"weightlora-{setting}" for setting in SETTINGS], "weightlora"),
        *(Pair(ROTTEN, f"weightlora-{setting}", f"random-{setting}") for setting in ("keep-18", "rank-2")),
        Pair(TWEETS, "weightlora-select-30", "weightlora"),
        Pair(IMDB, "weightlora-select-75", "weightlora"),
    ],
    "sgd": [*pairs([ROTTEN], "weightlora-sgd", ("lora-sgd", "random-sgd")), Pair(ROTTEN, "random-sgd", "lora-sgd")],
    "not-better": [
        Pair(ROTTEN, "weightlora-5e-4-faster-2", "weightlora"),
        *_each(TWEETS, ("weightlora-1e-3-faster-2", "weightlora-5e-4-faster-4"), "weightlora"),
        Pair(IMDB, "weightlora-5e-4-faster-2", "weightlora"),
        Pair(SENTIMENT, "weightlora-2e-3-faster-2", "weightlora"),
        *pairs((ROTTEN, TWEETS, IMDB), "weightlora-sampled", ("weightlora",)),
        *pairs(TASKS, "credit-per-block-5", ("weightlora",)),
    ],
    "evidence": _each(ROTTEN, SCORES, "credit-60"),
    "agreement": pairs((ROTTEN, TWEETS, IMDB), "by-gradient-per-block", ("weightlora",)),
}
"""Table -> what it compares, a row each."""


def handful() -> str:
    """Five of 36 adapters, a row for each way to choose them: loss, and difference from random sets at five seeds."""
    first = next(iter(WAYS))
    losses: dict[tuple[str, str], dict[int, float]] = {}
    rows = [["five of 36, chosen by", "their parameters"]]
    for task in HANDFUL_ON:
        rows[0] += [f"{task}: loss", "minus random"]
    for way, labels in WAYS.items():
        runs = {
            task: [run for run in pool()[task, label].values() if run.seed < 5]
            for task, label in zip(HANDFUL_ON, labels, strict=True)
        }
        sizes = {run.adapter_parameters_after for several in runs.values() for run in several}
        rows.append([way, " to ".join(f"{size:,}" for size in sorted({min(sizes), max(sizes)}))])
        for task in HANDFUL_ON:
            own = losses[task, way] = {run.seed: run.held_out_loss for run in runs[task]}
            versus = None if way == first else paired(own, losses[task, first])
            against = "" if versus is None else f"{difference(versus)} ({versus['wins']} of {len(own)})"
            rows[-1] += [f"{fmean(own.values()):.3f}", against]
    return table(rows)


TABLES: dict[str, Callable[[], str]] = {
    **{name: partial(compared, rows) for name, rows in COMPARISONS.items()},
    "chance": chance,
    "decoder-seeds": decoder_seeds,
    "fewer-steps": fewer_steps,
    "reliability": reliability,
    "proportional": proportional,
    "proportional-by-task": proportional_by_task,
    "replication": replication,
    "replication-by-task": replication_by_task,
    "shares": shares,
    "shares-by-task": shares_by_task,
    "start": start,
    "start-by-task": start_by_task,
    "start-untuned": start_untuned,
    "untuned": untuned,
    "untuned-by-task": untuned_by_task,
    "handful": handful,
    "first-seeds": partial(
        early, [Pair(SENTIMENT, "weightlora", "random"), Pair(IMDB, "weightlora", "random-late")], seeds=5
    ),
    "layers": partial(
        by_layer,
        ROTTEN,
        ["weightlora", "weightlora-select-20", "weightlora-select-30", "weightlora-sampled", "weightlora-sgd"],
    ),
    "learning-rates": partial(rates, TASKS, ["lora", "random", "weightlora", "adalora"]),
}
