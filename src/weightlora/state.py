"""What resuming a selection needs, and only that; the history of a run is in its run directory.

The state grows with the number of adapters and not with the number of steps.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .adapters import LoraAdapter
from .config import WeightLoraConfig
from .errors import DataError, StateError
from .files import read_json, write_text
from .schema import check_values
from .wording import shown

STATE_FILE = "weightlora_state.json"
STATE_FORMAT = 3
PACKAGES = ("weightlora", "torch", "peft")


@dataclass(frozen=True)
class State:
    """A selection at one moment. The lists have one entry for each adapter of the first run, in model order.

    Attributes:
        config: The settings, as `dataclasses.asdict` gives them, with `select_steps` as a number.
        names, kinds, sizes, start_ranks: What the run began with.
        step_count: Optimizer steps seen in the selection phase.
        round: Rounds that are over.
        omega, scores: The gates (0 for an adapter that left), and what the choice ranks by.
        ranks, scalings: Of the adapters on the model; None for one that left.
        waiting: Names of adapters that are switched off and still on the model (FSDP1).
        costs: What steps cost (the fields of `Costs`), where that bounds the choice and is measured.
        carried: The part of `step_count` that a trainer does not count, because it gave up a training and began again.
    """

    config: dict[str, Any]
    names: list[str]
    kinds: list[str]
    sizes: list[int]
    start_ranks: list[int]
    step_count: int
    round: int
    omega: list[float]
    scores: list[float]
    ranks: list[int | None]
    scalings: list[float | None]
    waiting: list[str]
    costs: dict[str, Any] | None = None
    carried: int = 0

    @classmethod
    def at_start(cls, config: WeightLoraConfig, adapters: list[LoraAdapter]) -> "State":
        """The state of a run that has not begun."""
        return cls(
            config=asdict(config),
            names=[adapter.name for adapter in adapters],
            kinds=[adapter.kind for adapter in adapters],
            sizes=[adapter.size for adapter in adapters],
            start_ranks=[adapter.rank for adapter in adapters],
            step_count=0,
            round=0,
            omega=[1.0] * len(adapters),
            scores=[0.0] * len(adapters),
            ranks=[adapter.rank for adapter in adapters],
            scalings=[adapter.scaling for adapter in adapters],
            waiting=[],
        )

    def at(self, selector: Any) -> "State":
        """The state of the `WeightLora` that began with this one."""
        ranks = {adapter.name: adapter.rank for adapter in selector.adapters}
        scalings = {adapter.name: adapter.scaling for adapter in selector.adapters}
        return dataclasses.replace(
            self,
            config=asdict(selector.config),
            step_count=selector.step_count,
            round=selector.rounds_over,
            omega=list(selector.omega.values()),
            scores=list(selector.scores.values()),
            ranks=[ranks.get(name) for name in self.names],
            scalings=[scalings.get(name) for name in self.names],
            waiting=[adapter.name for adapter in selector.engine.waiting],
            costs=None if selector.limit is None else selector.limit.to_dict(),
        )

    @property
    def live(self) -> dict[str, tuple[int, float]]:
        """Rank and scaling of each adapter that is on the model."""
        columns = zip(self.names, self.ranks, self.scalings, strict=True)
        return {name: (rank, scaling) for name, rank, scaling in columns if rank is not None and scaling is not None}

    def column(self, name: str) -> dict[str, Any]:
        """One of the lists, by the adapters' names."""
        return dict(zip(self.names, getattr(self, name), strict=True))

    def evidence(self, adapters: list[LoraAdapter]) -> tuple[Tensor, ...]:
        """Scores and gates of these adapters, in their order, each of shape `(len(adapters),)`."""
        columns = self.column("scores"), self.column("omega")
        scores, omega = ([column[adapter.name] for adapter in adapters] for column in columns)
        return tuple(torch.tensor((scores, omega), dtype=torch.float64, device="cpu"))

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {"format": STATE_FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "State":
        """The inverse of `to_dict`.

        Raises:
            StateError: If the values are not a state that this version reads.
        """
        if not isinstance(values, Mapping):
            raise StateError(
                f"the state is a {type(values).__name__}, and must be a dict: pass what state_dict() gave."
            )
        found = values.get("format")
        if type(found) is not int or found != STATE_FORMAT:
            newer = type(found) is int and found > STATE_FORMAT
            remedy = "update weightlora" if newer else "start the run again"
            raise StateError(f"the state has format {shown(found)}, and this version reads {STATE_FORMAT}: {remedy}.")
        check_values(values)
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def write_state(state: Mapping[str, Any], directory: str | os.PathLike[str]) -> Path:
    """Write `weightlora_state.json` into a directory, whole or not at all, with a checksum.

    Args:
        state: From `WeightLora.state_dict()`.
        directory: A checkpoint; it is created if it is missing.

    Example:
        ```python
        from weightlora.state import write_state

        write_state(selector.state_dict(), "checkpoint-100")
        ```
    """
    text = json.dumps(state, sort_keys=True, allow_nan=False)
    packages = json.dumps({package: version(package) for package in PACKAGES})
    content = f'{{"sha256": "{_sha256(text)}", "versions": {packages}, "state": {text}}}\n'
    return write_text(Path(directory) / STATE_FILE, content)


def read_state(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that `write_state` wrote into a directory.

    Raises:
        StateError: If there is none, it was cut short or edited, or a newer version wrote it.
    """
    path = Path(directory) / STATE_FILE
    if not path.is_file():
        raise StateError(
            f"{path} is missing, so this checkpoint is not from a WeightLoRA run, or was cut short while it was "
            "written: resume from another one."
        )
    try:
        content = read_json(path)
        state: dict[str, Any] = content["state"]
        checksum = content["sha256"]
        text = json.dumps(state, sort_keys=True)
    except (DataError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"{path} is not a whole state file ({error}): resume from an earlier checkpoint.") from error
    if checksum != _sha256(text):
        raise StateError(
            f"{path} was changed after it was written (its checksum differs): resume from an untouched checkpoint."
        )
    State.from_dict(state)
    return state


def check_config(state: State, config: WeightLoraConfig) -> None:
    """Raise a `StateError` if the state was saved under other settings.

    `select_steps` as a fraction fits any number of steps: the run goes on with the number that it began with.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(WeightLoraConfig)}
    for name, value in asdict(config).items():
        if name == "select_steps" and isinstance(value, float):
            continue
        saved = state.config.get(name, defaults[name])  # an earlier version did not have the setting
        if saved != value:
            raise StateError(
                f"the state was saved with {name}={saved!r}, and the config says {value!r}: resume with the settings "
                "of the first run."
            )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
