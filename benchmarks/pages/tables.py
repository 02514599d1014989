"""Tables of stored runs: comparisons, kept adapters by layer, learning rates."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from weightlora.compare.statistics import paired
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
    """The paired difference in loss of each comparison, and at how many common seeds the method has the lower loss.

    On one task, a row for each method, with its loss and parameters, and a column for each reference. On several,
    a row for each method and reference, and a column for each.
    """
    found = {pair: _versus(pair) for pair in rows}
    tasks, references = _column(found, "task"), _column(found, "reference")
    if len(tasks) == 1:
        heads = [f"minus `{reference}`" for reference in references]
        return table(
            [
                ["method", "loss (seeds)", "parameters", *heads],
                *(
                    [*_own(tasks[0], label), *(found.get(Pair(tasks[0], label, other), "") for other in references)]
                    for label in _column(found, "label")
                ),
            ]
        )
    methods = list(dict.fromkeys((pair.label, pair.reference) for pair in found))
    one = len(references) == 1
    return table(
        [
            [f"minus `{references[0]}`", *tasks] if one else ["method", "minus", *tasks],
            *(
                [
                    *([f"`{label}`"] if one else [f"`{label}`", f"`{other}`"]),
                    *(found.get(Pair(task, label, other), "") for task in tasks),
                ]
                for label, other in methods
            ),
        ],
        left=1 if one else 2,
    )


def _column(found: Iterable[Pair], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(pair, field) for pair in found))


def _versus(pair: Pair) -> str:
    own, reference = losses_of(pair.task, pair.label), losses_of(pair.task, pair.reference)
    versus = paired(own, reference)
    if versus is None:
        raise ValueError(f"{pair.label} and {pair.reference} have no common seed on {pair.task}.")
    return f"{difference(versus)} ({versus['wins']} of {len(own.keys() & reference.keys())})"


def _own(task: str, label: str) -> list[str]:
    """A method's name, loss and parameters."""
    losses = list(losses_of(task, label).values())
    failed = sum(loss > NOT_LEARNED for loss in losses) if task in BINARY else 0
    size = fmean(run.adapter_parameters_after for run in pool()[task, label].values())
    loss = f"{fmean(losses):.4f} ({len(losses)})" + (f", {failed} not learned" if failed else "")
    return [f"`{label}`", loss, f"{round(size):,}"]


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


def rates(tasks: Iterable[str], labels: Sequence[str]) -> str:
    """The learning rate that tuning preferred, by task and method."""
    rows = [["learning rate", *(f"`{label}`" for label in labels)]]
    for task in tasks:
        found = [sorted({run.settings["learning_rate"] for run in pool()[task, label].values()}) for label in labels]
        rows.append([task, *(", ".join(f"{rate:g}" for rate in several) for several in found)])
    return table(rows)
