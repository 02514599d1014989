"""A larger share of the parameters than a quarter: is the metric that of LoRA on all modules?"""

from statistics import fmean
from typing import Any

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference

from ..decision import LORA
from ..results import Runs, by_seed, losses
from .points import complete_tasks
from .runs import runs_in
from .tables import table
from .tuned import PROBE, SEEDS, TASKS
from .winner import CLOSE, counted, points_between, signed

SHARES = {PROBE: "25 %", "probe-30": "30 %", "probe-50": "50 %"}
"""Label -> the share of the parameters. The first is the default."""


def shares() -> str:
    """A row for each share whose runs are complete: against the default and LoRA on all modules, over all tasks."""
    runs = _runs()
    rows = [["share", "loss against the default's", "loss against LoRA's", "metric minus LoRA's", "level"]]
    for label, share in SHARES.items():
        if len(tasks := _complete(runs, label)) < len(TASKS):
            continue
        points = [
            found for task in tasks if (found := points_between(runs[task, label], runs[task, LORA])) is not None
        ]
        level = f"{sum(found >= -CLOSE for found in points)} of {len(points)} tasks"
        against = "" if label == PROBE else counted({task: _loss(runs, task, label, PROBE) for task in tasks})
        rows.append([share, against, counted({task: _loss(runs, task, label, LORA) for task in tasks})])
        rows[-1] += [f"{signed(fmean(points))} points", level]
    return table(rows)


def shares_by_task() -> str:
    """A row for each task and share whose runs are complete."""
    header = ["task", "share", "adapters", "loss minus the default's", "minus LoRA's"]
    runs, rows = _runs(), [[*header, "metric minus the default's", "minus LoRA's"]]
    for task in TASKS:
        for label, share in SHARES.items():
            if task not in _complete(runs, label):
                continue
            sizes = {run.adapters_after for run in runs[task, label].values()}
            row = [task, share, " to ".join(map(str, sorted({min(sizes), max(sizes)})))]
            for compare in (_loss, _metric):
                row.append("" if label == PROBE else difference(compare(runs, task, label, PROBE)))
                row.append(difference(compare(runs, task, label, LORA)))
            rows.append(row)
    return table(rows, left=2)


def _runs() -> Runs:
    return by_seed(run for study in ("tuned", "shares") for run in runs_in(study) if run.seed in SEEDS)


def _complete(runs: Runs, label: str) -> list[str]:
    return complete_tasks(runs, TASKS, {PROBE, LORA, label}, SEEDS)


def _loss(runs: Runs, task: str, label: str, reference: str) -> dict[str, Any] | None:
    return paired(losses(runs[task, label]), losses(runs[task, reference]))


def _metric(runs: Runs, task: str, label: str, reference: str) -> dict[str, Any] | None:
    own, others = ({seed: run.value for seed, run in runs[task, name].items()} for name in (label, reference))
    return paired(own, others)
