"""A selection on disk: the state file beside a checkpoint, and a model brought to the structure it tells of."""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.optim import Optimizer

from .adapters import LoraAdapter, expansion, find_adapters, surgery, unwrap_model
from .config import WeightLoraConfig

logger = logging.getLogger(__name__)

STATE_FILE = "weightlora_state.json"
STATE_FORMAT = 2
PACKAGES = ("weightlora", "torch", "peft")

FIELDS: dict[str, type] = {
    "config": dict,
    "names": list,
    "kinds": dict,
    "sizes": dict,
    "start_ranks": dict,
    "step_count": int,
    "round": int,
    "omega": dict,
    "scores": dict,
    "ranks": dict,
    "scalings": dict,
    "history": list,
}


def write_state(state: Mapping[str, Any], directory: str | os.PathLike[str]) -> Path:
    """Write `weightlora_state.json` into a directory, whole or not at all, with a checksum.

    Args:
        state: From `WeightLora.state_dict()`.
        directory: A checkpoint; it is made if it is not there.
    """
    path = Path(directory) / STATE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{STATE_FILE}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            content = {"sha256": _checksum(state), "state": state, "versions": {p: version(p) for p in PACKAGES}}
            json.dump(content, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_state(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that `write_state` wrote into a directory.

    Raises:
        ValueError: If there is none, it was cut short or edited, or a newer version wrote it.
    """
    path = Path(directory) / STATE_FILE
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, so this checkpoint is not one of a WeightLoRA run, or was cut short while it was "
            "written: resume from another one."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        state, checksum = content["state"], content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no whole state file ({error}): resume from an earlier checkpoint.") from error
    if checksum != _checksum(state):
        raise ValueError(
            f"{path} was changed after it was written (its checksum differs): resume from an untouched checkpoint."
        )
    check_state(state)
    return state


def check_state(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state itself.

    Raises:
        ValueError: If it is not of the format that this version reads.
    """
    found = state.get("format")
    if found != STATE_FORMAT:
        newer = isinstance(found, int) and found > STATE_FORMAT
        remedy = "update weightlora" if newer else "start the run anew"
        raise ValueError(f"the state has format {found!r}, and this version reads {STATE_FORMAT}: {remedy}.")
    for field, kind in FIELDS.items():
        if not isinstance(state.get(field), kind):
            raise ValueError(f"the state's {field!r} is {state.get(field)!r}, and must be a {kind.__name__}.")
    return state


def check_config(state: Mapping[str, Any], config: WeightLoraConfig) -> None:
    """Raise a `ValueError` if the state was saved under other settings."""
    for name, value in asdict(config).items():
        if state["config"].get(name) != value:
            raise ValueError(
                f"the state was saved with {name}={state['config'].get(name)!r}, and the config says {value!r}: "
                "resume with the settings of the first run."
            )


def start_of(adapters: list[LoraAdapter]) -> dict[str, Any]:
    """The part of a state that says what a run began with."""
    return {
        "names": [adapter.name for adapter in adapters],
        "kinds": {adapter.name: adapter.kind for adapter in adapters},
        "sizes": {adapter.name: adapter.size for adapter in adapters},
        "start_ranks": {adapter.name: adapter.rank for adapter in adapters},
    }


def restore(
    model: nn.Module, checkpoint_dir: str | os.PathLike[str], optimizer: Optimizer | None = None
) -> dict[str, Any]:
    """Bring a model, built as in the first run, to the structure it had at a checkpoint.

    Adapters that were gone are disconnected, and ranks and scalings are those of the checkpoint, so that its weights
    and its optimizer's state fit. Call it before the optimizer or the Trainer is built; then resume as usual.

    Args:
        model: A PEFT model with the LoRA adapters of the first run.
        checkpoint_dir: Holds `weightlora_state.json`; the weights are not loaded here.
        optimizer: One that holds the model's parameters already; it is edited in place.

    Returns:
        The state, for `WeightLora(model, optimizer, config, state)` in a loop of one's own.

    Raises:
        ValueError: If the state is missing or damaged, is of another model, or lies beside the weights of other
            adapters.
    """
    state = read_state(checkpoint_dir)
    adapters = bring_to_(model, find_adapters(model, state["config"].get("adapter_name")), state, optimizer)
    _check_weights(model, adapters[0].adapter_name, Path(checkpoint_dir), state.get("silent", []))
    return state


def bring_to_(
    model: nn.Module, adapters: list[LoraAdapter], state: Mapping[str, Any], optimizer: Optimizer | None = None
) -> list[LoraAdapter]:
    """Disconnect, expand and scale until the adapters on the model are those of the state; returns them.

    Does nothing to what is there already, so it may be called on a model that was restored.

    Raises:
        ValueError: If the model lacks an adapter of the state, or has one that the state does not know, or one of
            another size.
    """
    names = {adapter.name for adapter in adapters}
    _check_names(names, state)
    _check_sizes(adapters, state)
    losers = [adapter for adapter in adapters if adapter.name not in state["ranks"]]
    survivors = [adapter for adapter in adapters if adapter.name in state["ranks"]]
    structure = [(state["ranks"][adapter.name], state["scalings"][adapter.name]) for adapter in survivors]
    if not losers and structure == [(adapter.rank, adapter.scaling) for adapter in survivors]:
        return survivors
    surgery.disconnect_(model, losers, optimizer)
    for adapter, (rank, scaling) in zip(survivors, structure, strict=True):
        expansion.expand_(adapter, rank, "random", optimizer, torch.Generator())
        adapter.set_scaling_(scaling)
    surgery.describe_(model, survivors[0].adapter_name)
    return survivors


def _check_names(names: Iterable[str], state: Mapping[str, Any]) -> None:
    names, all_names = set(names), set(state["names"])
    if names != all_names and names != state["ranks"].keys():
        strange = sorted(names - all_names) or sorted(state["ranks"].keys() - names) or sorted(all_names - names)
        raise ValueError(
            f"the state is of {len(all_names)} adapters, and this model has {len(names)}; {strange[0]!r} is not in "
            "both: build the model as in the first run."
        )


def _check_sizes(adapters: list[LoraAdapter], state: Mapping[str, Any]) -> None:
    for adapter in adapters:
        name, size = adapter.name, state["sizes"][adapter.name]
        began = adapter.rank == state["start_ranks"][name]
        if adapter.size != size if began else adapter.rank != state["ranks"].get(name):
            raise ValueError(
                f"adapter {name!r} has rank {adapter.rank} and {adapter.size} parameters, and had rank "
                f"{state['start_ranks'][name]} and {size} when the run began: build the model as in the first run."
            )


def _check_weights(model: nn.Module, adapter_name: str, directory: Path, silent: Iterable[str]) -> None:
    """Where PEFT's file is in the checkpoint: PEFT would load what fits of it, and say nothing of the rest.

    Adapters that fell silent and could not leave before the checkpoint was written are in the file all the same.
    """
    model = unwrap_model(model)
    path = directory / ("" if adapter_name == "default" else adapter_name) / SAFETENSORS_WEIGHTS_NAME
    if not isinstance(model, PeftModel) or not path.is_file():
        return
    with safe_open(path, "pt") as file:
        saved = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    own = {key: list(value.shape) for key, value in state.items()}
    strange = [key for key in own if own[key] != saved.get(key)]
    extra = [key for key in saved.keys() - own.keys() if model.base_model.prefix in key]
    strange += [key for key in extra if not any(f".{name}." in key for name in silent)]
    if strange:
        raise ValueError(
            f"{path} has other adapters or ranks than {STATE_FILE} beside it ({sorted(strange)[0]!r} is not the same "
            "in both): the files of two checkpoints were mixed, resume from another one."
        )


def last_whole(directory: str | os.PathLike[str], prefix: str, marker: str) -> Path:
    """The checkpoint `{prefix}-{step}` of the most steps that `check_whole` lets through; others are logged.

    Raises:
        ValueError: If there is none.
    """
    found = Path(directory).glob(f"{prefix}-*")
    checkpoints = {int(n): path for path in found if (n := path.name.rpartition("-")[2]).isdigit()}
    for step in sorted(checkpoints, reverse=True):
        try:
            check_whole(checkpoints[step], marker)
        except ValueError as error:
            logger.warning(f"{checkpoints[step]} is passed over: {error}")
            continue
        return checkpoints[step]
    raise ValueError(f"there is no whole checkpoint in {directory} to resume from: start anew, or name one.")


def check_whole(directory: str | os.PathLike[str], marker: str) -> None:
    """Raise a `ValueError` unless a checkpoint was written to its end, and is sound as far as that can be seen.

    Args:
        directory: The checkpoint.
        marker: The JSON file in it that is written last.
    """
    read_state(directory)
    last = Path(directory) / marker
    try:
        json.loads(last.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{last} is missing or cut short ({error}): resume from an earlier checkpoint.") from error
    folder = Path(directory)
    for path in [*folder.rglob("*.safetensors"), *folder.glob("*.pt"), *folder.glob("*.pth")]:
        if not _has_its_directory(path):
            raise ValueError(f"{path} is cut short: resume from an earlier checkpoint.")


def _has_its_directory(path: Path) -> bool:
    """Both formats list what they hold, at the beginning or at the end; a file that was cut short lacks a part."""
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False


def _checksum(state: Any) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
