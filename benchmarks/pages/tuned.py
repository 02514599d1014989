"""What the default is worth where every method is tuned on every task."""

from collections.abc import Iterable, Mapping

from weightlora.compare.statistics import interval
from weightlora.compare.tables import markdown_table, with_interval
from weightlora.train.result import Result

from ..decision import CANDIDATES, LORA, LOWER_RANK, PEFT_DEFAULT
from ..results import Runs, by_seed
from .points import complete_tasks, missing
from .winner import Worth, render_winner, weigh

PROBE = "probe"
SEEDS = range(5, 10)
TASKS = (
    "supersenses",
    "film-reviews",
    "imdb-all",
    "vader-tweets-all",
    "spam",
    "rotten-tomatoes-all",
    "products",
    "editorials",
)
OTHER_TEXTS = ("supersenses", "spam", "products", "editorials")
"""Tasks whose texts had no part when the probe's score was chosen."""
METHODS = {
    PROBE: "the probe",
    CANDIDATES[PROBE].alike: "random sets of the same sizes",
    PEFT_DEFAULT: "PEFT's default list",
    LOWER_RANK: "a lower rank on all modules",
    LORA: "LoRA on all modules",
}
INTRODUCTION = (
    "The main comparison tunes learning rates on one task. Here the validation split of each task chooses the rate of "
    "each method ([all rates](../tuning.md)): MiniLM-L6 with 37 modules, five seeds that no earlier comparison has. "
    "Differences are paired, with 95 % intervals. How it is measured was written down before the runs "
    "(`benchmarks/quality/tuned/DECISION.md`)."
)


def weigh_tuned(results: Iterable[Result]) -> Worth:
    """What the probe is worth on the complete tasks."""
    runs = by_seed(results)
    return weigh(runs, PROBE, dict.fromkeys(complete_tasks(runs, TASKS, METHODS, SEEDS), SEEDS))


def render_tuned_markdown(results: Iterable[Result]) -> str:
    """The page, about the complete tasks."""
    runs = by_seed(run for run in results if run.seed in SEEDS)
    tasks = complete_tasks(runs, TASKS, METHODS, SEEDS)
    parts = ["# Rates tuned on each task", INTRODUCTION, *missing(TASKS, tasks)]
    if tasks:
        parts += [*render_winner(runs, PROBE, dict.fromkeys(tasks, SEEDS)), render_methods(runs, tasks, METHODS)]
    if others := [task for task in tasks if task in OTHER_TEXTS]:
        counts, _ = render_winner(runs, PROBE, dict.fromkeys(others, SEEDS))
        parts += ["## Texts that had no part in the rule", f"The same for {', '.join(others)}:", counts]
    return "\n\n".join(parts) + "\n"


def render_methods(by_method: Runs, tasks: Iterable[str], methods: Mapping[str, str]) -> str:
    """A table of rates, losses and metrics, with a row for each task and method.

    Args:
        by_method: The runs that count.
        tasks: Each has runs of all methods.
        methods: Label -> the words for it.
    """
    rows = []
    for task in tasks:
        for label, words in methods.items():
            runs = by_method[task, label].values()
            (rate,) = {run.settings["learning_rate"] for run in runs}
            (metric,) = {run.metric for run in runs}
            values = (interval([run.held_out_loss for run in runs]), interval([run.value for run in runs]))
            loss, value = map(with_interval, values)
            rows.append([task, words, f"{rate:g}", loss, metric, value])
    return markdown_table(["task", "method", "rate", "loss", "metric", "value"], rows)
