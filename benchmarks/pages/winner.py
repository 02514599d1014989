"""What the rule that wins the decision is worth: against each reference, and what choosing takes."""

from collections.abc import Collection, Iterable, Mapping
from statistics import fmean, median
from typing import Any, NamedTuple

from scipy import stats

from weightlora.compare.statistics import CONFIDENCE, excludes_zero, jaccard, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from ..decision import CANDIDATES, LORA, LOWER_RANK, PEFT_DEFAULT
from ..results import Runs, losses, probe_cost

PARTS = {"fraction": 100.0, "percent": 1.0}
"""Points in a unit of the metric."""

CLOSE = 0.5
"""Points of the metric that count as level with LoRA on all modules."""

LORA_IN_WORDS = "LoRA on all modules"
FEW_POINTS = f"Metric at most {CLOSE} points lower"

BySeed = Mapping[int, Result]


def signed(points: float) -> str:
    """A difference of the metric with one digit; what rounds to 0 has no minus."""
    return f"{round(points, 1) + 0.0:+.1f}"


class Worth(NamedTuple):
    """What the runs of a winner show, by task.

    Attributes:
        versus: Reference -> task -> the loss minus the reference's; None where it was not run. References that ran on
            no task are left out.
        points: The metric minus that of LoRA on all modules, in points; None where it has none.
        overlaps: Mean overlap of the sets of two seeds.
        shares: Part of a run that choosing takes.
        kept: Modules of the model -> the sets that its runs kept, and the tasks of these.
        seeds: The seeds that count.
    """

    versus: dict[str, dict[str, dict[str, Any] | None]]
    points: dict[str, float | None]
    overlaps: dict[str, float | None]
    shares: dict[str, float | None]
    kept: dict[tuple[str, ...], tuple[list[frozenset[str]], set[str]]]
    seeds: Mapping[str, Collection[int]]

    @property
    def against(self) -> dict[str, str]:
        """On how many tasks each reference is significantly worse and better."""
        return {f"Against {words}": counted(by_task) for words, by_task in self.versus.items()}

    @property
    def known(self) -> list[float]:
        """The points of the tasks that have some."""
        return [found for found in self.points.values() if found is not None]

    @property
    def close(self) -> str:
        """On how many tasks the metric is level with that of LoRA on all modules."""
        return f"{sum(found >= -CLOSE for found in self.known)} of {len(self.known)} tasks"

    @property
    def cells(self) -> dict[str, str]:
        """What a column of `render_worths` says, by row."""
        if not (known := self.known):
            return self.against
        metric = f"median {signed(median(known))} points, mean {signed(fmean(known))}"
        return {**self.against, f"Metric compared with {LORA_IN_WORDS}": metric, FEW_POINTS: self.close}

    @property
    def metric(self) -> dict[str, str]:
        """How far the metric is from that of LoRA on all modules; empty if no task has points."""
        if not (known := self.known):
            return {}
        spread = f"median {signed(median(known))}, from {signed(min(known))} to {signed(max(known))}"
        said = {
            f"Metric compared with {LORA_IN_WORDS}": f"{signed(fmean(known))} points on average ({spread}), at most "
            f"{CLOSE} points lower on {self.close}"
        }
        # A lower loss is not always a better metric.
        better = [task for task, found in self.versus.get(LORA_IN_WORDS, {}).items() if _is_better(found)]
        if there := [found for task in better if (found := self.points[task]) is not None]:
            shown = ", ".join(f"{signed(found)}" for found in there)
            said[f"Metric minus that of {LORA_IN_WORDS} where the loss is better"] = f"{shown} points"
        return said

    @property
    def sets(self) -> dict[str, str]:
        """How many different sets the runs on the same modules kept: few, where the task says little about it."""
        said = {}
        for names, (kept, tasks) in self.kept.items():
            number, many = len(set(kept)), "s" if len(tasks) > 1 else ""
            different = "the same set" if number == 1 else f"{number} different sets"
            said[f"On the model with {len(names)} modules"] = (
                f"{len(kept)} runs on {len(tasks)} task{many} kept {different}"
            )
        return said


def weigh(runs: Runs, winner: str, seeds: Mapping[str, Collection[int]]) -> Worth:
    """Compare a winner with the references on each task.

    Args:
        runs: All runs of the winner, of PEFT's default list and of LoRA. Those of the other references may be absent.
        winner: One of the candidates.
        seeds: Task -> the seeds that count.
    """

    def of(task: str, label: str) -> dict[int, Result]:
        return {seed: run for seed, run in runs[task, label].items() if seed in seeds[task]}

    own = {task: of(task, winner) for task in seeds}
    return Worth(
        versus={
            words: {
                task: paired(losses(own[task]), losses(others)) if len(others) == len(those) else None
                for task, those in seeds.items()
                for others in [of(task, label)]
            }
            for words, label in references_of(winner).items()
            if any(of(task, label) for task in seeds)
        },
        points={task: points_between(own[task], of(task, LORA)) for task in seeds},
        overlaps={task: jaccard([run.kept for run in own[task].values()]) for task in seeds},
        shares={task: (probe_cost(own[task]) or {}).get("share_of_run") for task in seeds},
        kept=_kept(own),
        seeds=seeds,
    )


def references_of(winner: str) -> dict[str, str]:
    """What a winner is compared with, in words, and the label of its runs."""
    return {
        "random sets of the same sizes": CANDIDATES[winner].alike,
        "PEFT's default list": PEFT_DEFAULT,
        "a lower rank on all modules": LOWER_RANK,
        LORA_IN_WORDS: LORA,
    }


def render_winner(runs: Runs, winner: str, seeds: Mapping[str, Collection[int]]) -> list[str]:
    """A list of what its runs show, and a table with a row for each task. The arguments are those of `weigh`."""
    worth = weigh(runs, winner, seeds)
    rows = [
        [
            task,
            *(difference(by_task[task]) for by_task in worth.versus.values()),
            _shown(worth.points[task], "+.2f"),
            _shown(worth.overlaps[task], ".2f"),
            _shown(worth.shares[task], ".1%"),
        ]
        for task in seeds
    ]
    header = [winner, *(f"loss minus that of {words}" for words in worth.versus), "metric minus LoRA's, points"]
    listed = [
        *(f"- {words}: significantly {found}." for words, found in worth.against.items()),
        *(f"- {words}: {found}." for words, found in worth.metric.items()),
        *_choosing(worth.overlaps.values(), worth.shares.values()),
        *(f"- {words}, {found}." for words, found in worth.sets.items()),
    ]
    return [
        "\n".join(listed),
        markdown_table([*header, "overlap of two seeds", "choosing, part of a run"], rows),
    ]


def render_worths(worths: Mapping[str, Worth]) -> str:
    """A table with a row for each reference, and a column for each of several comparisons."""
    said = {name: worth.cells for name, worth in worths.items()}
    rows = list(dict.fromkeys(words for column in said.values() for words in column))
    return markdown_table(
        ["", *said], [[words, *(column.get(words, "") for column in said.values())] for words in rows]
    )


def render_corrected(worths: Mapping[str, Worth]) -> str:
    """A table with a row for each reference: the tasks on which the winner is better and worse, and after correction.

    Args:
        worths: Title of a column -> a comparison.
    """
    rows: dict[str, list[str]] = {}
    for place, worth in enumerate(worths.values()):
        for words, by_task in worth.versus.items():
            there = {task: found for task, found in by_task.items() if found is not None}
            better = sum(map(_is_better, there.values()))
            counts = (better, sum(map(excludes_zero, there.values())) - better)
            of = f" (of {len(there)})" if len(there) < len(by_task) else ""
            row = rows.setdefault(words, ["", ""] * len(worths))
            row[2 * place : 2 * place + 2] = [
                f"{lower}, {higher}{of}" for lower, higher in (counts, corrected(there, worth.seeds))
            ]
    header = ["reference", *(title for name in worths for title in (name, "corrected"))]
    return markdown_table(header, [[words, *row] for words, row in rows.items()])


def points_between(runs: BySeed, reference: BySeed) -> float | None:
    """The difference of the mean metrics, in points; None if they are not parts of a whole, such as perplexities."""
    (factor,) = {PARTS.get(run.metric_units[run.metric]) for run in [*runs.values(), *reference.values()]}
    if factor is None:
        return None
    return factor * (fmean(run.value for run in runs.values()) - fmean(run.value for run in reference.values()))


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def counted(differences: Mapping[str, Mapping[str, Any] | None]) -> str:
    """On how many tasks a reference is significantly worse and better.

    Args:
        differences: Task -> the loss minus that of the reference; None where it was not run.
    """
    there = [found for found in differences.values() if found is not None]
    better = sum(map(_is_better, there))
    worse = sum(map(excludes_zero, there)) - better
    return f"better on {better} of {len(there)} tasks, worse on {worse}"


def corrected(
    differences: Mapping[str, Mapping[str, Any] | None], seeds: Mapping[str, Collection[int]]
) -> tuple[int, int]:
    """On how many tasks a reference is significantly worse and better after Holm's correction.

    Args:
        differences: As in `counted`.
        seeds: Task -> the seeds of its pairs. With them, an interval gives the p-value of its paired t-test.
    """
    tests = []
    for task, found in differences.items():
        if found is None or found["ci"] is None:
            continue
        freedom = len(seeds[task]) - 1
        p_value = float(not found["mean"])  # of differences that are all equal
        if found["ci"]:
            t = found["mean"] / found["ci"] * stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
            p_value = float(2 * stats.t.sf(abs(t), freedom))
        tests.append((p_value, found["mean"]))
    signs = [0, 0]
    for place, (p_value, mean) in enumerate(sorted(tests)):
        if p_value > (1 - CONFIDENCE) / (len(tests) - place):
            break
        signs[mean > 0] += 1
    return signs[0], signs[1]


def _is_better(found: Mapping[str, Any] | None) -> bool:
    return found is not None and excludes_zero(found) and found["mean"] < 0


def _kept(own: Mapping[str, BySeed]) -> dict[tuple[str, ...], tuple[list[frozenset[str]], set[str]]]:
    found: dict[tuple[str, ...], tuple[list[frozenset[str]], set[str]]] = {}
    for task, runs in own.items():
        for run in runs.values():
            sets, tasks = found.setdefault(tuple(run.names or ()), ([], set()))
            sets.append(frozenset(run.kept or ()))
            tasks.add(task)
    return found


def _choosing(overlaps: Iterable[float | None], shares: Iterable[float | None]) -> list[str]:
    known, took = ([one for one in values if one is not None] for values in (overlaps, shares))
    said = [f"- The sets of two seeds overlap by {fmean(known):.2f} on average (Jaccard)."] if known else []
    return [*said, f"- Choosing takes {min(took):.1%} to {max(took):.1%} of a run."] if took else said
