"""What the rule that wins the decision is worth: against each reference, and what choosing takes."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from statistics import fmean, median
from typing import Any

from weightlora.compare.statistics import excludes_zero, jaccard, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from ..decision import CANDIDATES, LORA, LOWER_RANK, PEFT_DEFAULT
from ..results import Runs, losses, probe_cost

__all__ = ["counted", "render_winner"]

PARTS = {"fraction": 100.0, "percent": 1.0}
"""Points in a unit of the metric."""

CLOSE = 0.5
"""Points of the metric that count as level with LoRA on all modules."""

BySeed = Mapping[int, Result]


def render_winner(runs: Runs, winner: str, seeds: Mapping[str, Collection[int]]) -> list[str]:
    """A list of what its runs show, and a table with a row for each task.

    Args:
        runs: All runs of the winner, of PEFT's default list and of LoRA. Those of the other references may be absent.
        winner: One of the candidates.
        seeds: Task -> the seeds that count.
    """

    def of(task: str, label: str) -> dict[int, Result]:
        return {seed: run for seed, run in runs[task, label].items() if seed in seeds[task]}

    own = {task: of(task, winner) for task in seeds}
    references = {
        "random sets of the same sizes": CANDIDATES[winner].alike,
        "PEFT's default list": PEFT_DEFAULT,
        "a lower rank on all modules": LOWER_RANK,
        "LoRA on all modules": LORA,
    }
    versus = {
        words: {
            task: paired(losses(own[task]), losses(others)) if len(others) == len(those) else None
            for task, those in seeds.items()
            for others in [of(task, label)]
        }
        for words, label in references.items()
        if any(of(task, label) for task in seeds)
    }
    points = {task: _points(own[task], of(task, LORA)) for task in seeds}
    overlaps = {task: jaccard([run.kept for run in own[task].values()]) for task in seeds}
    shares = {task: (probe_cost(own[task]) or {}).get("share_of_run") for task in seeds}
    rows = [
        [
            task,
            *(difference(by_task[task]) for by_task in versus.values()),
            _shown(points[task], "+.2f"),
            _shown(overlaps[task], ".2f"),
            _shown(shares[task], ".1%"),
        ]
        for task in seeds
    ]
    header = [winner, *(f"loss minus that of {words}" for words in versus), "metric minus LoRA's, points"]
    return [
        "\n".join(
            [
                *(counted(words, by_task) for words, by_task in versus.items()),
                *_close([found for found in points.values() if found is not None]),
                *_choosing(overlaps.values(), shares.values()),
                *_different(own),
            ]
        ),
        markdown_table([*header, "overlap of two seeds", "choosing, part of a run"], rows),
    ]


def _points(runs: BySeed, reference: BySeed) -> float | None:
    """The difference of the mean metrics, in points; None if they are not parts of a whole, such as perplexities."""
    (factor,) = {PARTS.get(run.metric_units[run.metric]) for run in [*runs.values(), *reference.values()]}
    if factor is None:
        return None
    return factor * (fmean(run.value for run in runs.values()) - fmean(run.value for run in reference.values()))


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def counted(words: str, differences: Mapping[str, Mapping[str, Any] | None]) -> str:
    """On how many tasks a reference is significantly worse and better, as an item of a list.

    Args:
        words: The reference.
        differences: Task -> the loss minus that of the reference; None where it was not run.
    """
    there = [found for found in differences.values() if found is not None]
    clear = [found["mean"] for found in there if excludes_zero(found)]
    better, worse = (sum(sign * mean > 0 for mean in clear) for sign in (-1, 1))
    return f"- Against {words}: significantly better on {better} of {len(there)} tasks, worse on {worse}."


def _close(points: list[float]) -> list[str]:
    if not points:
        return []
    mean, close = fmean(points), sum(found >= -CLOSE for found in points)
    return [
        f"- Metric compared with LoRA on all modules: {mean:+.1f} points on average "
        f"(median {median(points):+.1f}, from {min(points):+.1f} to {max(points):+.1f}), at most {CLOSE} points lower "
        f"on {close} of {len(points)} tasks."
    ]


def _different(own: Mapping[str, BySeed]) -> list[str]:
    """How many different sets the runs on the same modules kept: few, where the task says little about the choice."""
    sets: defaultdict[tuple[str, ...], list[frozenset[str]]] = defaultdict(list)
    tasks: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for task, runs in own.items():
        for run in runs.values():
            names = tuple(run.names or ())
            sets[names].append(frozenset(run.kept or ()))
            tasks[names].add(task)
    return [
        f"- On the model with {len(names)} modules, {len(kept)} runs on {count} task{'s' * (count > 1)} kept "
        f"{'the same set' if len(set(kept)) == 1 else f'{len(set(kept))} different sets'}."
        for names, kept in sets.items()
        for count in [len(tasks[names])]
    ]


def _choosing(overlaps: Iterable[float | None], shares: Iterable[float | None]) -> list[str]:
    known, took = ([one for one in values if one is not None] for values in (overlaps, shares))
    said = [f"- The sets of two seeds overlap by {fmean(known):.2f} on average (Jaccard)."] if known else []
    return [*said, f"- Choosing takes {min(took):.1%} to {max(took):.1%} of a run."] if took else said
