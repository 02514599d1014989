"""Five of 36 adapters: one row per way to choose them, on two tasks."""

from statistics import fmean

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from .runs import pool
from .tables import table

TASKS = ("rotten-tomatoes", "vader-tweets")
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


def handful() -> str:
    """Loss and difference from random sets, paired by seed, over the first five seeds of each."""
    first = next(iter(WAYS))
    losses: dict[tuple[str, str], dict[int, float]] = {}
    rows = [["five of 36, chosen by", "their parameters"]]
    for task in TASKS:
        rows[0] += [f"{task}: loss", "minus random"]
    for way, labels in WAYS.items():
        runs = {
            task: [run for run in pool()[task, label].values() if run.seed < 5]
            for task, label in zip(TASKS, labels, strict=True)
        }
        sizes = {run.parameters for several in runs.values() for run in several}
        rows.append([way, " to ".join(f"{size:,}" for size in sorted({min(sizes), max(sizes)}))])
        for task in TASKS:
            own = losses[task, way] = {run.seed: run.loss for run in runs[task]}
            versus = None if way == first else paired(own, losses[task, first])
            against = "" if versus is None else f"{difference(versus)} ({versus['wins']} of {len(own)})"
            rows[-1] += [f"{fmean(own.values()):.3f}", against]
    return table(rows)
