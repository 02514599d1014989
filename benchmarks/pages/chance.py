"""Update credit against random sets: the table and the picture."""

from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference
from weightlora.train.result import Result

from ..figures.differences import draw_differences
from .runs import runs_in
from .tables import table

COLUMNS = {
    "random": "random sets from the start, at their tuned rate",
    "same-rate": "random sets from the start, at update credit's rate",
    "random-late": "random sets chosen after the same selection phase",
}
Losses = dict[str, dict[int, float]]  # task -> seed -> loss


def losses() -> dict[str, Losses]:
    """Held-out loss of update credit and of the three kinds of random sets, by label.

    `same-rate` holds random sets from the start at update credit's rate, from whichever experiment has them.
    """
    found: dict[str, Losses] = {label: {} for label in ("weightlora", *COLUMNS)}
    main = runs_in()
    rates = {run.task: run.settings["learning_rate"] for run in main if run.label == "weightlora"}
    alike = [_without_rate(run) for run in main if run.label == "random"]

    def add(label: str, run: Result) -> None:
        found[label].setdefault(run.task, {})[run.seed] = run.held_out_loss

    for run in main + runs_in("ablations"):
        if run.label in found:
            add(run.label, run)
        if run.settings["learning_rate"] == rates.get(run.task) and _without_rate(run) in alike:
            add("same-rate", run)
    return found


def _without_rate(run: Result) -> dict[str, Any]:
    """Everything that makes the run, without its label and its learning rate."""
    return {key: value for key, value in run.settings.items() if key not in ("label", "learning_rate")}


def chance() -> str:
    """Update credit minus random sets: one row per task, and how often update credit is lower over all tasks."""
    found = losses()
    rows = [["loss of update credit minus loss of", *COLUMNS.values()]]
    totals = dict.fromkeys(COLUMNS, (0, 0))
    for task, own in sorted(found["weightlora"].items()):
        rows.append([task])
        for label in COLUMNS:
            reference = found[label].get(task, {})
            versus = paired(own, reference)
            if versus is None:
                rows[-1].append("")
                continue
            seeds = len(own.keys() & reference.keys())
            rows[-1].append(f"{difference(versus)} ({versus['wins']} of {seeds})")
            totals[label] = (totals[label][0] + versus["wins"], totals[label][1] + seeds)
        if not any(rows[-1][1:]):  # the task has no random sets
            del rows[-1]
    tests = [
        f"{wins} of {seeds} (p = {binomtest(wins, seeds).pvalue:.3f})" if seeds else ""
        for wins, seeds in totals.values()
    ]
    return table([*rows, ["lower in loss, all tasks (two-sided sign test)", *tests]])


def draw_chance(path: Path) -> Path:
    """The same differences as a picture."""
    found, panels = losses(), {}
    for task, own in sorted(found["weightlora"].items()):
        panel = {}
        for label, words in COLUMNS.items():
            reference = found[label].get(task, {})
            differences = [own[seed] - reference[seed] for seed in sorted(own.keys() & reference.keys())]
            panel[words] = (paired(own, reference) or {}, differences)
        if any(differences for _, differences in panel.values()):
            panels[task] = panel
    return draw_differences(panels, "held-out loss of update credit minus that of random sets", path)
