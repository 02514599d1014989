"""Experiments as data: `<root>/<task>/task.json` is what all methods share, `<root>/<task>/<label>.json` the rest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightlora import __version__

from .results import RESULT_FORMAT

DEFAULTS: dict[str, Any] = {
    "steps": 300,
    "select_steps": 60,
    "batch_size": 16,
    "max_length": 32,
    "rank": 8,
    "alpha": 32,
    "dropout": 0.0,
    "keep": 9,
    "warmup_steps": 18,
    "weight_decay": 0.0,
    "learning_rate": 1e-3,
    "evaluate_on": "test",
    "seeds": 5,
    "options": {},
}
OPTIONAL = {
    "train_examples",
    "validation_examples",
    "test_examples",
    "device",
    "bf16",
    "evidence",
    "optimizer",
    "leave_one_out",
}
OPTIONAL |= {"model", "data", "text_column", "label_column"}


@dataclass(frozen=True)
class Run:
    """One run that is to be: resolved settings, a seed, and where its result goes."""

    experiment: dict[str, Any]
    seed: int
    output: Path

    def is_done(self) -> bool:
        """Whether a whole result of these very settings and of this version is there."""
        try:
            result = json.loads(self.output.read_text(encoding="utf-8"))
            return (
                result["format"] == RESULT_FORMAT
                and result["experiment"] == self.experiment
                and result["seed"] == self.seed
                and result["versions"]["weightlora"] == __version__
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def set_aside(self) -> bool:
        """Rename what is in the result's place and is none to `*.aside`; whether there was anything."""
        if self.is_done() or not self.output.exists():
            return False
        self.output.replace(self.output.with_name(f"{self.output.name}.aside"))
        return True


def tasks_in(root: Path) -> list[str]:
    """Names of the tasks that have experiments under `root`."""
    return sorted(path.parent.name for path in root.glob("*/task.json"))


def labels_in(root: Path, task: str) -> list[str]:
    """Labels of a task's experiments, in alphabetical order."""
    return sorted(path.stem for path in (root / task).glob("*.json") if path.stem != "task")


def resolve(root: Path, task: str, label: str) -> dict[str, Any]:
    """An experiment's settings: the defaults, overridden by the task's file, overridden by its own.

    Raises:
        ValueError: If the task or the label is unknown, or a file has a key that no experiment has.
    """
    _check_task(root, task)
    if label not in labels_in(root, task):
        raise ValueError(f"method {label!r} is unknown for {task}: it has {', '.join(labels_in(root, task))}.")
    shared, own = (json.loads((root / task / f"{name}.json").read_text(encoding="utf-8")) for name in ("task", label))
    known = DEFAULTS.keys() | OPTIONAL | {"task", "method", "label"}
    for key in (*shared, *own):
        if key not in known:
            raise ValueError(f"{key!r} in {task}/{label}.json is no setting: known are {', '.join(sorted(known))}.")
    return {**DEFAULTS, "task": task, "method": label, **shared, **own, "label": label}


def _check_task(root: Path, task: str) -> None:
    if task not in tasks_in(root):
        raise ValueError(f"task {task!r} is unknown in {root}: it has {', '.join(tasks_in(root)) or 'no task'}.")


def plan(root: Path, tasks: list[str] | None, labels: list[str] | None, seeds: int | None) -> list[Run]:
    """Every run, seed by seed, so that the first hour shows all methods once and later ones narrow the intervals.

    Labels that a task lacks are passed over, unless the task was named, or no task has them.

    Raises:
        ValueError: If a task or a label is unknown, or there is no experiment at all.
    """
    if not tasks_in(root):
        raise ValueError(f"there are no experiments in {root}: no <task>/task.json.")
    runs = []
    for task in tasks or tasks_in(root):
        known = labels_in(root, task)
        if tasks is None and labels is not None:
            everywhere = {label for name in tasks_in(root) for label in labels_in(root, name)}
            wanted = [label for label in labels if label in known or label not in everywhere]
        else:
            _check_task(root, task)
            wanted = labels or known
        for label in wanted:
            experiment = resolve(root, task, label)
            count = seeds or experiment.pop("seeds")
            experiment.pop("seeds", None)
            directory = root / task / "results" / label
            runs += [Run(experiment, seed, directory / f"seed-{seed}.json") for seed in range(count)]
    return sorted(runs, key=lambda run: run.seed)
