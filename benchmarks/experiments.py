"""Experiments as data: `<root>/<task>/task.json` has the settings of all methods, `<label>.json` those of one.

A task runs the workload of its name, or the `workload` that `task.json` names. With `rates_from` in `task.json`, each
method runs at the learning rate that the other task, which was tuned, has for it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightlora import __version__
from weightlora.errors import ConfigError, DataError
from weightlora.files import move_aside, read_json
from weightlora.train.result import Result, read_result
from weightlora.wording import shown

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
    "first_seed": 0,
    "seeds": 5,
    "options": {},
}
SEEDS = ("first_seed", "seeds")
"""Which runs an experiment has. No setting of a run."""
OPTIONAL = {
    "workload",
    "train_examples",
    "validation_examples",
    "test_examples",
    "device",
    "bf16",
    "evidence",
    "optimizer",
    "leave_one_out",
}


@dataclass(frozen=True)
class Run:
    """One run that is planned.

    Attributes:
        experiment: Resolved settings, or the settings of a cell of a sweep.
        seed: Seed of the run.
        output: File of its result.
    """

    experiment: dict[str, Any]
    seed: int
    output: Path

    @property
    def kind(self) -> str:
        """Task and label."""
        return f"{self.experiment['task']}/{self.experiment['label']}"

    def result(self) -> Result | None:
        """The stored result; None unless it is complete, of these settings and this version, and still alike."""
        try:
            result = read_result(self.output)
        except DataError:
            return None
        same = result.settings == self.experiment and result.seed == self.seed and is_still_alike(result)
        return result if same and result.versions.get("weightlora") == __version__ else None

    def is_done(self) -> bool:
        """Whether there is such a result."""
        return self.result() is not None

    def set_aside(self) -> bool:
        """Rename another file in the place of the result to `*.aside`; returns whether there was one."""
        if self.is_done() or not self.output.exists():
            return False
        move_aside(self.output)
        return True


def tasks_in(root: Path) -> list[str]:
    """Names of the tasks that have experiments in `root`, in alphabetical order."""
    return sorted(path.parent.name for path in root.glob("*/task.json"))


def labels_in(root: Path, task: str) -> list[str]:
    """Labels of the experiments of a task, in alphabetical order."""
    return sorted(path.stem for path in (root / task).glob("*.json") if path.stem != "task")


def resolve(root: Path, task: str, label: str) -> dict[str, Any]:
    """The settings of an experiment: the defaults, overridden by the file of the task, overridden by its own.

    Raises:
        ConfigError: The task or the label is unknown, a file has an unknown key, or `<label>.json` names a workload.
    """
    _check_task(root, task)
    if label not in labels_in(root, task):
        raise ConfigError(f"method {label!r} is unknown for {task}: choose one of {', '.join(labels_in(root, task))}.")
    shared, own = (read_json(root / task / f"{name}.json") for name in ("task", label))
    _check_keys({**shared, **own}, f"{task}/{label}.json")
    if "workload" in own:
        raise ConfigError(
            f"{task}/{label}.json has the workload {own['workload']!r}, but all methods of a task share one: name it "
            f"in {task}/task.json."
        )
    settings = {**DEFAULTS, "task": task, "method": label, **shared, **own, "label": label}
    if tuned := settings.pop("rates_from", None):
        settings["learning_rate"] = _rate(root, task, label, own, tuned)
    for name, default in DEFAULTS.items():
        kind = float | int | None if name == "keep" else float | int if isinstance(default, float) else type(default)
        if not isinstance(settings[name], kind) or isinstance(settings[name], bool):
            raise ConfigError(
                f"{task}/{label}.json has {name}={shown(settings[name])}, which must be like {default!r}: mend it."
            )
    return settings


def _rate(root: Path, task: str, label: str, own: Mapping[str, Any], tuned: str) -> float:
    """The learning rate that the task `tuned` has for a label, or the usual one if it has none yet."""
    if "learning_rate" in own:
        raise ConfigError(
            f"{task}/{label}.json has learning_rate={shown(own['learning_rate'])}, but {task}/task.json takes all "
            f"rates from {tuned}: drop one of the two."
        )
    return read_json(root / tuned / f"{label}.json").get("learning_rate", DEFAULTS["learning_rate"])


def _check_keys(settings: Mapping[str, Any], place: str) -> None:
    known = DEFAULTS.keys() | OPTIONAL | {"task", "method", "label", "rates_from"}
    for key in settings:
        if key not in known:
            raise ConfigError(f"{place} has the unknown setting {key!r}: choose one of {', '.join(sorted(known))}.")


def _check_task(root: Path, task: str) -> None:
    if task not in tasks_in(root):
        raise ConfigError(f"task {task!r} is unknown in {root}: it has {', '.join(tasks_in(root)) or 'no task'}.")


def plan(root: Path, tasks: list[str] | None, labels: list[str] | None, seeds: int | None) -> list[Run]:
    """Every run, seed by seed: the first hour shows all methods once, and later ones narrow the intervals.

    A run that reads what another one chose comes a seed later, when the other one is done.

    A label that a task does not have is skipped, unless the task was named or no task has the label.

    Raises:
        ConfigError: A task or a label is unknown, or there is no experiment at all.
    """
    if not tasks_in(root):
        raise ConfigError(f"there are no experiments in {root}: no <task>/task.json.")
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
            first, own = (experiment.pop(name) for name in SEEDS)
            directory = root / task / "results" / label
            runs += [Run(experiment, first + i, directory / f"seed-{first + i}.json") for i in range(seeds or own)]
    return sorted(runs, key=lambda run: run.seed + reads_another(run))


def reads_another(run: Run) -> bool:
    """Whether a run reads what the run of another method chose, at the same seed."""
    return "like" in run.experiment.get("options", {})


def is_still_alike(result: Result) -> bool:
    """Whether random sets have the sizes of what the method in `options["like"]` keeps at their seed, as stored now.

    True for other methods, and where nothing is stored of that one.
    """
    like = result.settings.get("options", {}).get("like")
    if result.method != "random-alike" or not isinstance(like, str):
        return True
    try:
        chosen = read_result(Path(like) / f"seed-{result.seed}.json").kept
    except DataError:
        return True
    sizes = dict(zip(result.names or (), result.sizes or (), strict=False))
    drawn, now = (Counter(map(sizes.get, names or ())) for names in (result.kept, chosen))
    return drawn == now
