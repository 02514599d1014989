"""Tables of stored runs: comparisons, losses by seed, kept adapters by layer, learning rates."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from weightlora.compare.statistics import jaccard, paired
from weightlora.compare.tables import difference

from .runs import losses_of, pool

# A classifier that has learned nothing has a loss of 0.69 on these tasks.
BINARY = {"imdb", "rotten-tomatoes", "rotten-tomatoes-all", "smollm2-sentiment", "smollm2-sentiment-float32"}
NOT_LEARNED = 0.6


class Pair(NamedTuple):
    """A method compared with a reference on one task, by the labels of their runs."""

    task: str
    label: str
    reference: str


def pairs(tasks: Iterable[str], label: str, references: Sequence[str]) -> list[Pair]:
    """A method compared with each reference on each task."""
    return [Pair(task, label, reference) for task in tasks for reference in references]


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first row is the header, and the first `left` columns are aligned to the left."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    columns = [" --- "] * left + [" ---: "] * (len(rows[0]) - left)
    return "\n".join([head, "|" + "|".join(columns) + "|", *body])


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def compared(rows: Iterable[Pair]) -> str:
    """One row per comparison: the method's loss, parameters and agreement, and the paired difference in loss."""
    found = [["task", "method", "loss (seeds)", "parameters", "overlap", "compared with", "difference", "lower at"]]
    for pair in rows:
        runs = list(pool()[pair.task, pair.label].values())
        own, reference = losses_of(pair.task, pair.label), losses_of(pair.task, pair.reference)
        versus = paired(own, reference)
        if versus is None:
            raise ValueError(f"{pair.label} and {pair.reference} have no common seed on {pair.task}.")
        overlap = jaccard([run.kept for run in runs])
        found.append(
            [
                pair.task,
                f"`{pair.label}`",
                _loss(pair.task, list(own.values())),
                f"{round(fmean(run.adapter_parameters_after for run in runs)):,}",
                "" if overlap is None else f"{overlap:.2f}",
                f"`{pair.reference}`",
                difference(versus),
                f"{versus['wins']} of {len(own.keys() & reference.keys())}",
            ]
        )
    return table(found, left=2)


def _loss(task: str, losses: Sequence[float]) -> str:
    failed = sum(loss > NOT_LEARNED for loss in losses) if task in BINARY else 0
    return f"{fmean(losses):.4f} ({len(losses)})" + (f", {failed} not learned" if failed else "")


def by_seed(task: str, labels: Sequence[str], kinds: bool = False) -> str:
    """The loss at each seed.

    Args:
        kinds: Add in brackets how many modules of the MLP and of the attention were kept.
    """
    seeds = sorted({seed for label in labels for seed in pool()[task, label]})
    rows = [["method", *(f"seed {seed}" for seed in seeds)]]
    for label in labels:
        rows.append([f"`{label}`"])
        for seed in seeds:
            run = pool()[task, label].get(seed)
            if run is None or run.kept is None or not kinds:
                rows[-1].append("" if run is None else f"{run.held_out_loss:.4f}")
                continue
            attention = sum(".attention." in name for name in run.kept)
            rows[-1].append(f"{run.held_out_loss:.4f} ({len(run.kept) - attention} + {attention})")
    return table(rows)


def by_layer(task: str, labels: Sequence[str]) -> str:
    """How many adapters of each layer were kept, mean over seeds."""
    rows: list[list[str]] = []
    for label in labels:
        runs = list(pool()[task, label].values())
        layers = Counter(_layer(name) for run in runs for name in run.kept or ())
        rows.append([f"`{label}` ({len(runs)})", *(f"{layers[layer] / len(runs):.1f}" for layer in range(6))])
    return table([["method (seeds)", *(f"layer {layer}" for layer in range(6))], *rows])


def _layer(name: str) -> int:
    return next(int(part) for part in name.split(".") if part.isdecimal())


def early(rows: Iterable[Pair], seeds: int) -> str:
    """The paired difference over the first seeds, and over all."""
    found = [["task", "method", "compared with", f"first {seeds} seeds", "all seeds"]]
    for pair in rows:
        own, reference = losses_of(pair.task, pair.label), losses_of(pair.task, pair.reference)
        first = {seed: loss for seed, loss in own.items() if seed < seeds}
        cells = [
            f"{difference(paired(some, reference))} ({len(some.keys() & reference.keys())})" for some in (first, own)
        ]
        found.append([pair.task, f"`{pair.label}`", f"`{pair.reference}`", *cells])
    return table(found, left=3)


def by_count(task: str, label: str, parts: Sequence[str]) -> str:
    """Mean loss of random sets by the number of members whose name contains one of `parts`; 3 means 3 or more."""
    losses: dict[int, list[float]] = {}
    for run in pool()[task, label].values():
        count = sum(any(part in name for part in parts) for name in run.kept or ())
        losses.setdefault(min(count, 3), []).append(run.held_out_loss)
    counts = sorted(losses)
    rows = [["members", *("3 or more" if count == 3 else str(count) for count in counts)]]
    rows.append(["sets", *(str(len(losses[count])) for count in counts)])
    rows.append(["mean loss", *(f"{fmean(losses[count]):.4f}" for count in counts)])
    return table(rows)


def rates(tasks: Iterable[str], labels: Sequence[str]) -> str:
    """The learning rate that tuning preferred, by task and method."""
    rows = [["learning rate", *(f"`{label}`" for label in labels)]]
    for task in tasks:
        found = [sorted({run.settings["learning_rate"] for run in pool()[task, label].values()}) for label in labels]
        rows.append([task, *(", ".join(f"{rate:g}" for rate in several) for several in found)])
    return table(rows)
