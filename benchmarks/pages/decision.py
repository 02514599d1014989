"""The page on which rule is the default: the rule of decision, applied to what is stored."""

import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from weightlora.compare.statistics import interval, paired
from weightlora.compare.tables import difference, markdown_table
from weightlora.train.result import Result

from ..decision import CANDIDATES, PEFT_DEFAULT, SECOND, Look, Losses, Verdict, decide, looks
from ..figures.differences import draw_differences
from ..results import Runs, by_seed, losses
from .costs import NEW_TASKS
from .replication import weigh_replication
from .runs import runs_in
from .tuned import weigh_tuned
from .winner import Worth, references_of, render_corrected, render_winner, render_worths, weigh

INTRODUCTION = (
    "The rule of this decision was written down before the runs (`benchmarks/quality/DECISION.md`). The *regret* of a "
    "candidate is its mean held-out loss minus the lowest mean among the candidates, divided by the mean loss of LoRA "
    "on all modules. A candidate is out if it is significantly worse (▲) than random sets of its own sizes or than "
    "PEFT's default list on any task. Of the others, the one with the smallest mean regret wins. If several are "
    "within 0.005 of it, the cheapest of them wins. Random sets run only where the winner depends on them. The second "
    "look has only those candidates that the first one left in, with a mean regret of less than 0.02 above the "
    "winner's. [What the winner is worth](../evidence.md#what-the-default-is-worth) has its differences from all "
    "references."
)


def render_decision_markdown(results: Iterable[Result]) -> str:
    """A section for each look; empty while runs of the first one are missing.

    Args:
        results: As they were loaded.
    """
    runs = by_seed(run for run in results if run.task in SECOND.seeds)
    sections = [
        part for name, look in looks(_losses(runs)).items() for part in (f"## The {name} look", *_look(runs, look))
    ]
    return "\n\n".join(["# Which rule is the default", INTRODUCTION, *sections]) + "\n" if sections else ""


def worth() -> str:
    """What the stored runs of the first look's winner show: a list, and a table with a row for each complete task."""
    return "\n\n".join(render_winner(*_of_winner()))


def draw_worth(path: str | os.PathLike[str]) -> Path:
    """The same differences of the loss as a picture, in percent of the reference's mean loss."""
    runs, winner, seeds = _of_winner()
    panels: dict[str, dict[str, tuple[dict[str, Any], list[float]]]] = {}
    for words, label in references_of(winner).items():
        panels[words] = {}
        for task, those in seeds.items():
            own, others = (losses(runs[task, name]) for name in (winner, label))
            there = [seed for seed in those if seed in others]
            percent = 100 / fmean(others[seed] for seed in there) if there else 0.0
            parts = [(own[seed] - others[seed]) * percent for seed in there]
            panels[words][NEW_TASKS[task]] = (interval(parts) if parts else {}, parts)
    what = (
        "held-out loss of the default minus that of each reference, in percent of it (below 0: the default is better)"
    )
    return draw_differences(panels, what, path)


def shown() -> str:
    """What it is worth at rates tuned on one task, on each, and with LoRA's rate: a row for each reference."""
    return render_worths(_comparisons())


def after_correction() -> str:
    """On how many tasks it is better and worse than each reference, also after Holm's correction."""
    return render_corrected(_comparisons())


def _comparisons() -> dict[str, Worth]:
    return {
        "rate tuned on one task per model": weigh(*_of_winner()),
        "rate tuned on each task": weigh_tuned(runs_in("tuned")),
        "LoRA's rate for the default": weigh_replication(),
    }


def _of_winner() -> tuple[Runs, str, dict[str, range]]:
    """The runs of the main comparison, the winner of its first look, and the seeds of the second."""
    runs = by_seed(runs_in())
    second = looks(_losses(runs))["second"]
    return runs, second.default, _seeds(second)


def _losses(runs: Runs) -> Losses:
    return {key: losses(found) for key, found in runs.items()}


def _look(runs: Runs, look: Look) -> list[str]:
    found = _losses(runs)
    verdict = decide(found, look)
    becomes = "stays" if verdict.winner == look.default else "becomes"
    said = f"**{verdict.winner}** {becomes} the default: {verdict.reason}"
    return [said, _regrets(verdict, look), _differences(found, verdict, look)]


def _seeds(look: Look) -> dict[str, range]:
    return {task: range(count) for task, count in look.seeds.items()}


def _regrets(verdict: Verdict, look: Look) -> str:
    if len(look.candidates) == 1:  # its regret is 0 on every task
        return (
            "It is the only candidate here, so one question is left: is it significantly worse than a reference on "
            "any task?"
        )
    rows = [
        [name, *(f"{verdict.regrets[name][task]:.4f}" for task in look.seeds), f"{verdict.mean_regret(name):.4f}"]
        for name in sorted(look.candidates, key=verdict.mean_regret)
    ]
    return markdown_table(["regret", *look.seeds, "mean"], rows)


def _differences(found: Losses, verdict: Verdict, look: Look) -> str:
    rows = []
    for name in look.candidates:
        for label in (CANDIDATES[name].alike, PEFT_DEFAULT):
            if label != PEFT_DEFAULT and name in verdict.unchecked:
                rows.append([name, label, *("" for _ in look.seeds), "not run: the winner does not depend on it"])
                continue
            cells = [
                difference(paired(found[task, name], {seed: found[task, label][seed] for seed in range(count)}))
                for task, count in look.seeds.items()
            ]
            rows.append([name, label, *cells, "; ".join(verdict.out.get(name, ()))])
    return markdown_table(["candidate", "loss minus that of", *look.seeds, "out, because"], rows)
