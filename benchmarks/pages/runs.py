"""The stored runs, as the pages use them."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from weightlora.train.result import Result

from ..results import load_results

QUALITY = Path(__file__).parents[1] / "quality"
STUDIES = ("", "ablations", "rivals", "headroom", "plus")


class Run(NamedTuple):
    """One training run.

    Attributes:
        loss: Held-out loss.
        value: The task's main metric on the same split, as a fraction where it has a unit.
        parameters: Adapter parameters at the end.
        adapters: Their number at the end.
        kept: Names of the adapters at the end; None if the method has none.
        settings: Everything that makes the run, without its label and its learning rate.
    """

    task: str
    label: str
    seed: int
    loss: float
    metric: str
    value: float
    parameters: int
    adapters: int
    kept: tuple[str, ...] | None
    learning_rate: float
    settings: Mapping[str, Any]


def _run(result: Result) -> Run:
    settings = {key: value for key, value in result.settings.items() if key not in ("label", "learning_rate")}
    return Run(
        task=result.task,
        label=result.label,
        seed=result.seed,
        loss=result.held_out_loss,
        metric=result.metric,
        value=result.value,
        parameters=result.adapter_parameters_after,
        adapters=result.adapters_after,
        kept=None if result.kept is None else tuple(result.kept),
        learning_rate=result.settings["learning_rate"],
        settings=settings,
    )


@cache
def runs_in(study: str = "") -> tuple[Run, ...]:
    """The runs of the main comparison, or of a study beside it."""
    return tuple(_run(result) for result in load_results(QUALITY / study)[0])


@cache
def pool() -> Mapping[tuple[str, str], Mapping[int, Run]]:
    """All runs, by (task, label) and seed. Where two studies have the same label, the later study counts."""
    found: defaultdict[tuple[str, str], dict[int, Run]] = defaultdict(dict)
    for study in STUDIES:
        for run in runs_in(study):
            found[run.task, run.label][run.seed] = run
    return found


def losses_of(task: str, label: str) -> dict[int, float]:
    """Held-out loss by seed; empty if nothing is stored."""
    return {seed: run.loss for seed, run in pool().get((task, label), {}).items()}
