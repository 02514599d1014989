"""The tables of docs/log.md: which stored runs each entry compares."""

from collections.abc import Callable
from statistics import fmean

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from .chance import chance
from .costs import TASKS
from .runs import pool
from .tables import Pair, by_count, by_layer, by_seed, compared, early, pairs, rates, table

ROTTEN, IMDB, TWEETS, SENTIMENT, _ = TASKS
SCORES = ("credit-60", "credit-per-block-30", "credit-per-block-60", "credit-per-root-60")
WORSE = ("update-60", "leave-one-out-60", "gate-60", "next-credit-60", "credit-20", "credit-30")
LEVEL = ("gradient-60", "credit-per-parameter-60", "credit-times-update-60")
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


def rivals() -> str:
    """What other papers, fixed lists and other adapters give, against the default."""
    labels = CHOOSE_BEFORE + OTHERS
    return compared(Pair(task, label, "probe") for task in RIVALS_ON for label in labels)


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


def handful_choices() -> str:
    """Five of 36 on Rotten Tomatoes: bound, rate, other scores."""
    ends = [f"weightlora-5-unbounded{suffix}" for suffix in ("", "-5e-4", "-5e-4-faster-2")]
    rows = [Pair(ROTTEN, label, "random-5") for label in ends]
    rows.append(Pair(ROTTEN, ends[2], ends[1]))
    rows += [Pair(ROTTEN, f"{score}-5-unbounded", "random-5") for score in SCORES]
    rows += [
        Pair(ROTTEN, "credit-60-5-unbounded", "credit-60-5"),
        Pair(ROTTEN, "credit-60-5-unbounded", "random-mlp-5"),
        Pair(ROTTEN, "credit-60-5-unbounded", "lora"),
        Pair(TWEETS, "credit-60-5-unbounded-2e-3", "credit-60-5-2e-3"),
        Pair(TWEETS, "credit-60-5-unbounded-2e-3", "random-mlp-5-2e-3"),
        Pair(TWEETS, "credit-60-5-unbounded-2e-3", "lora"),
    ]
    return compared(rows)


def handful_seeds() -> str:
    labels = ["credit-60-5", "credit-60-5-unbounded", "weightlora-5-unbounded", "weightlora-5-unbounded-5e-4-faster-2"]
    return by_seed(ROTTEN, labels, kinds=True)


def handful_tweets() -> str:
    labels = ["credit-60-5-2e-3", "credit-60-5-unbounded-2e-3", "weightlora-5-unbounded-5e-4-faster-4"]
    return by_seed(TWEETS, labels, kinds=True)


def headroom() -> str:
    rows = [Pair(ROTTEN, "best-9", "random"), Pair(ROTTEN, "weightlora", "random")]
    rows += [Pair(ROTTEN, f"{label}-5", "random-5") for label in ("best", "weightlora", "weightlora-paper", "top")]
    rows += [Pair(ROTTEN, "best-5", "lora")]
    rows += [Pair(ROTTEN, f"{label}-5", "top-5") for label in ("weightlora", "weightlora-paper")]
    return compared(rows)


def queries() -> str:
    return by_count(ROTTEN, "random-5", ("query", "key"))


def first_seeds() -> str:
    return early([Pair(SENTIMENT, "weightlora", "random"), Pair(IMDB, "weightlora", "random-late")], seeds=5)


def late_sets() -> str:
    return compared(pairs((ROTTEN, TWEETS), "credit-60", ("random", "weightlora")))


def imdb_rate() -> str:
    return compared([Pair(IMDB, "weightlora", "lora"), Pair(IMDB, "weightlora", "lora-5e-4")])


def imdb_seeds() -> str:
    return by_seed(IMDB, ["weightlora", "lora", "lora-5e-4"])


def failures() -> str:
    return by_seed(ROTTEN, ["rslora", "grad-norm", "lora-equal", "weightlora-paper"])


def lora() -> str:
    return compared(pairs(TASKS, "weightlora", ("lora",)))


def lower_rank() -> str:
    return compared(pairs(TASKS, "lora-equal", ("weightlora",)))


def other_adapters() -> str:
    labels = ("adalora", "eva", "top")
    rows = [pair for label in labels for pair in pairs(TASKS, label, ("weightlora",))]
    return compared(rows + [pair for label in labels[1:] for pair in pairs(TASKS, label, ("random",))])


def other_methods() -> str:
    labels = ("kappa", "grad-norm", "last-layers", "dora", "rslora", "lokr", "vera", "loha", "full")
    rows = [Pair(ROTTEN, label, "weightlora") for label in labels]
    rows += [Pair(ROTTEN, label, "random") for label in ("last-layers", "vera")]
    rows += [Pair(ROTTEN, label, "lora") for label in ("dora", "loha")]
    return compared([*rows, Pair(ROTTEN, "full", "loha")])


def gates() -> str:
    return compared(pairs(TASKS, "weightlora-paper", ("weightlora",)) + pairs([ROTTEN], "random", ("weightlora",)))


def size() -> str:
    labels = ("random-mlp", "random-parameters", "weightlora-unbounded", "random-mlp-5")
    rows = [Pair(ROTTEN, label, "weightlora") for label in labels]
    rows += [Pair(TWEETS, label, "weightlora") for label in ("random-mlp", "random-mlp-1e-3", "random-mlp-5")]
    without = "random-without-query-key"
    return compared([*rows, Pair(ROTTEN, without, "random"), Pair(ROTTEN, without, "weightlora")])


def plus() -> str:
    return compared(pairs(TASKS, "weightlora-plus", ("weightlora", "lora", "lora-equal")))


def plus_settings() -> str:
    ways = [f"plus-rank-8-{way}" for way in ("random", "restart", "rounds-2", "rounds-3")]
    rows = [pair for way in ways for pair in pairs([ROTTEN], way, ("weightlora-plus", "lora"))]
    rows += [Pair(ROTTEN, f"plus-rank-{rank}", f"lora-rank-{rank}") for rank in (4, 2, 1)]
    return compared([*rows, Pair(ROTTEN, "plus-rank-2", "weightlora")])


def settings() -> str:
    labels = ("keep-18", "rank-2", "rounds-2", "rounds-3", "parameters", "select-20", "select-30", "select-120")
    rows = [Pair(ROTTEN, f"weightlora-{label}", "weightlora") for label in labels]
    rows += [Pair(ROTTEN, f"weightlora-{label}", f"random-{label}") for label in ("keep-18", "rank-2")]
    return compared(
        [*rows, Pair(TWEETS, "weightlora-select-30", "weightlora"), Pair(IMDB, "weightlora-select-75", "weightlora")]
    )


def sgd() -> str:
    return compared(
        [*pairs([ROTTEN], "weightlora-sgd", ("lora-sgd", "random-sgd")), Pair(ROTTEN, "random-sgd", "lora-sgd")]
    )


def layers() -> str:
    return by_layer(
        ROTTEN, ["weightlora", "weightlora-select-20", "weightlora-select-30", "weightlora-sampled", "weightlora-sgd"]
    )


def learning_rates() -> str:
    return rates(TASKS, ["lora", "random", "weightlora", "adalora"])


def not_better() -> str:
    rows = [
        Pair(ROTTEN, "weightlora-5e-4-faster-2", "weightlora"),
        Pair(TWEETS, "weightlora-1e-3-faster-2", "weightlora"),
        Pair(TWEETS, "weightlora-5e-4-faster-4", "weightlora"),
        Pair(IMDB, "weightlora-5e-4-faster-2", "weightlora"),
        Pair(SENTIMENT, "weightlora-2e-3-faster-2", "weightlora"),
    ]
    rows += pairs((ROTTEN, TWEETS, IMDB), "weightlora-sampled", ("weightlora",))
    return compared([*rows, *pairs(TASKS, "credit-per-block-5", ("weightlora",))])


def evidence() -> str:
    rows = [Pair(ROTTEN, label, "credit-60") for label in (*WORSE, *LEVEL)]
    return compared(rows + [Pair(ROTTEN, label, "random") for label in WORSE])


def agreement() -> str:
    return compared(pairs((ROTTEN, TWEETS, IMDB), "by-gradient-per-block", ("weightlora",)))


TABLES: dict[str, Callable[[], str]] = {
    "rivals": rivals,
    "chance": chance,
    "handful": handful,
    "handful-choices": handful_choices,
    "handful-seeds": handful_seeds,
    "handful-tweets": handful_tweets,
    "headroom": headroom,
    "queries": queries,
    "first-seeds": first_seeds,
    "late-sets": late_sets,
    "lora": lora,
    "imdb-rate": imdb_rate,
    "imdb-seeds": imdb_seeds,
    "lower-rank": lower_rank,
    "other-adapters": other_adapters,
    "other-methods": other_methods,
    "failures": failures,
    "gates": gates,
    "size": size,
    "plus": plus,
    "plus-settings": plus_settings,
    "settings": settings,
    "sgd": sgd,
    "layers": layers,
    "learning-rates": learning_rates,
    "not-better": not_better,
    "evidence": evidence,
    "agreement": agreement,
}
