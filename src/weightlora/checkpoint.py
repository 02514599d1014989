"""Checkpoints: which of them are whole, and a model brought to the structure that one of them describes."""

import json
import logging
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.optim import Optimizer

from .adapters import LoraAdapter, expansion, find_adapters, outcome, surgery, unwrap_model
from .errors import StateError
from .state import STATE_FILE, State, read_state, write_state

__all__ = ["bring_to_", "check_whole", "last_whole", "read_state", "restore", "restore_", "write_state"]

logger = logging.getLogger(__name__)


def restore(
    model: nn.Module, checkpoint_dir: str | os.PathLike[str], optimizer: Optimizer | None = None
) -> dict[str, Any]:
    """Bring a model, built as in the first run, to the structure it had at a checkpoint.

    Adapters that were gone are disconnected, and ranks and scalings are those of the checkpoint, so that its weights
    and its optimizer's state fit. Call it before the optimizer or the Trainer is built; then resume as usual.

    Args:
        model: A PEFT model with the LoRA adapters of the first run.
        checkpoint_dir: Holds `weightlora_state.json`. The weights are not loaded here.
        optimizer: One that holds the model's parameters already; it is edited in place.

    Returns:
        The state. In your own loop, pass it to `WeightLora(model, optimizer, config, state)`.

    Raises:
        StateError: If the state is missing or damaged, is of another model, or lies beside the weights of other
            adapters.

    Example:
        ```python
        model = get_peft_model(base, lora_config)
        state = weightlora.restore(model, "out/checkpoint-100")
        model.load_adapter("out/checkpoint-100", "default", is_trainable=True)
        ```
    """
    state = read_state(checkpoint_dir)
    restore_(model, State.from_dict(state), checkpoint_dir, optimizer)
    return state


def restore_(
    model: nn.Module, state: State, checkpoint_dir: str | os.PathLike[str], optimizer: Optimizer | None = None
) -> None:
    """What `restore` does, with a state that was read already."""
    adapters = bring_to_(model, find_adapters(model, state.config.get("adapter_name")), state, optimizer)
    _check_weights(model, adapters[0].adapter_name, Path(checkpoint_dir), state.waiting)


def bring_to_(
    model: nn.Module, adapters: list[LoraAdapter], state: State, optimizer: Optimizer | None = None
) -> list[LoraAdapter]:
    """Disconnect, expand and scale until the adapters on the model are those of the state; returns them.

    What is in place already is left alone, so a model that was restored stays as it is.

    Raises:
        StateError: If the model lacks an adapter of the state, has one that the state does not know, or has one of
            another size.
    """
    live = state.live
    _check_names({adapter.name for adapter in adapters}, state)
    _check_sizes(adapters, state)
    losers = [adapter for adapter in adapters if adapter.name not in live]
    survivors = [adapter for adapter in adapters if adapter.name in live]
    if not losers and all((adapter.rank, adapter.scaling) == live[adapter.name] for adapter in survivors):
        return survivors
    surgery.disconnect_(model, losers, optimizer)
    for adapter in survivors:
        rank, scaling = live[adapter.name]
        expansion.expand_(adapter, rank, "random", optimizer, torch.Generator())
        adapter.set_scaling_(scaling)
    outcome.describe_(model, survivors[0].adapter_name)
    return survivors


def last_whole(directory: str | os.PathLike[str], prefix: str, marker: str) -> tuple[Path, State]:
    """The checkpoint `{prefix}-{step}` of the most steps that `check_whole` accepts; the others are logged.

    Raises:
        StateError: If there is none.
    """
    found = Path(directory).glob(f"{prefix}-*")
    checkpoints = {int(n): path for path in found if (n := path.name.rpartition("-")[2]).isdigit()}
    for step in sorted(checkpoints, reverse=True):
        try:
            return checkpoints[step], check_whole(checkpoints[step], marker)
        except StateError as error:
            logger.warning(f"{checkpoints[step]} is passed over: {error}")
    raise StateError(
        f"there is no whole checkpoint in {directory} to resume from: train without resume_from_checkpoint, or name "
        "one."
    )


def check_whole(directory: str | os.PathLike[str], marker: str) -> State:
    """The state of a checkpoint, which was written to its end and is sound as far as that can be seen.

    Args:
        directory: The checkpoint.
        marker: The JSON file in it that is written last.

    Raises:
        StateError: If it is not whole.
    """
    state = State.from_dict(read_state(directory))
    last = Path(directory) / marker
    try:
        json.loads(last.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StateError(f"{last} is missing or cut short ({error}): resume from an earlier checkpoint.") from error
    folder = Path(directory)
    for path in [*folder.rglob("*.safetensors"), *folder.glob("*.pt"), *folder.glob("*.pth")]:
        if not _has_its_directory(path):
            raise StateError(f"{path} is cut short: resume from an earlier checkpoint.")
    return state


def _check_names(names: set[str], state: State) -> None:
    all_names, live = set(state.names), state.live.keys()
    if names != all_names and names != live:
        strange = sorted(names - all_names) or sorted(live - names) or sorted(all_names - names)
        raise StateError(
            f"the state is of {len(all_names)} adapters, and this model has {len(names)}; {strange[0]!r} is not in "
            "both: build the model as in the first run."
        )


def _check_sizes(adapters: list[LoraAdapter], state: State) -> None:
    sizes, start_ranks, live = state.column("sizes"), state.column("start_ranks"), state.live
    for adapter in adapters:
        name = adapter.name
        began = adapter.rank == start_ranks[name]
        if adapter.size != sizes[name] if began else adapter.rank != live.get(name, (None,))[0]:
            raise StateError(
                f"adapter {name!r} has rank {adapter.rank} and {adapter.size} parameters, and had rank "
                f"{start_ranks[name]} and {sizes[name]} when the run began: build the model as in the first run."
            )


def _check_weights(model: nn.Module, adapter_name: str, directory: Path, waiting: Iterable[str]) -> None:
    """Where PEFT's file is in the checkpoint: PEFT would load what fits of it, and say nothing of the rest.

    Adapters that are switched off, and could not leave before the checkpoint was written, are in the file all the
    same.
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
    strange += [key for key in extra if not any(f".{name}." in key for name in waiting)]
    if strange:
        raise StateError(
            f"{path} has other adapters or ranks than {STATE_FILE} beside it ({sorted(strange)[0]!r} is not the same "
            "in both): the files of two checkpoints were mixed, resume from another one."
        )


def _has_its_directory(path: Path) -> bool:
    """Both formats list what they hold, at the beginning or at the end; a file that was cut short lacks a part."""
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False
