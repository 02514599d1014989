"""Checkpoints: which of them are whole, and a model brought to the structure that one of them describes."""

import logging
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.optim import Optimizer

from .adapters import LoraAdapter, expansion, find_adapters, outcome, surgery, unwrap_model
from .config import WeightLoraConfig
from .errors import StateError
from .manifest import MANIFEST, Manifest, check_manifest
from .state import STATE_FILE, State, check_config, read_state
from .tensors import numel

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
    if (Path(checkpoint_dir) / MANIFEST).is_file():
        check_manifest(checkpoint_dir)
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

    What is in place already is left alone, so a model that was restored stays as it is. After a choice, the backward
    pass stops at the lowest adapter again.

    Raises:
        StateError: If the model lacks an adapter of the state, has one that the state does not know, or has one of
            another size.
    """
    live = state.live
    _check_names({adapter.name for adapter in adapters}, state)
    _check_fit(adapters, state)
    if state.round:
        surgery.free_inputs_(model)
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


def check_resumes(
    state: State | None, config: WeightLoraConfig, adapters: list[LoraAdapter], names: list[str] | None = None
) -> None:
    """Raise a `StateError` if a run cannot go on from a state.

    Args:
        state: Of the earlier run; None for a run that begins.
        config: The settings.
        adapters: Those on the model.
        names: Those with which a selection began, if the state comes after it.
    """
    if state is None:
        return
    check_config(state, config)
    _check_names({adapter.name for adapter in adapters}, state)
    _check_fit(adapters, state)
    if names is not None and names != state.names:
        raise StateError(
            f"the model had {len(names)} of the {len(state.names)} adapters when this selection was built: pass the "
            "state to WeightLora(model, optimizer, config, state) instead."
        )


def last_whole(directory: str | os.PathLike[str], prefix: str, step_of: Callable[[Path], int]) -> tuple[Path, State]:
    """The checkpoint `{prefix}-{step}` of the most steps that `check_whole` accepts; the others are logged.

    Raises:
        StateError: If there is none.
    """
    named = re.compile(re.escape(prefix) + "-(0|[1-9][0-9]*)")
    inside = Path(directory).iterdir() if os.path.isdir(directory) else ()  # glob() would hide one that cannot be read
    found = [(int(match[1]), path) for path in inside if (match := named.fullmatch(path.name))]
    for step, path in sorted(found, reverse=True):
        try:
            state = check_whole(path, step_of)
            if step_of(path) == step:
                return path, state
            raise StateError(f"its content is of step {step_of(path)}, not of step {step}")
        except StateError as error:
            logger.warning(f"{path} is skipped: {error}")
    first = f"delete its {prefix}-* directories and " if found else ""
    raise StateError(
        f"there is no complete checkpoint in {directory} to resume from: {first}train without resume_from_checkpoint, "
        "or name one."
    )


def check_whole(directory: str | os.PathLike[str], step_of: Callable[[Path], int]) -> State:
    """The state of a checkpoint whose files are all there, unchanged, and of one step.

    Args:
        directory: The checkpoint.
        step_of: From the checkpoint to the step that the trainer would go on from.

    Raises:
        StateError: If it is not whole.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise StateError(f"{directory} is not a directory: name a checkpoint that is there.")
    manifest, state = check_manifest(folder), State.from_dict(read_state(folder))
    step = step_of(folder)
    if step != manifest.step:
        raise StateError(
            f"the trainer's state in {folder} is of step {step}, and its manifest of step {manifest.step}: the files "
            "of two checkpoints were mixed, resume from another one."
        )
    _check_step(state, manifest, folder)
    if not manifest.has_optimizer:
        logger.warning(
            f"{folder} has no state of optimizer, scheduler and random numbers (save_only_model=True): the run starts "
            "them again, so it ends with other weights than an uninterrupted run."
        )
    return state


def _check_step(state: State, manifest: Manifest, folder: Path) -> None:
    """The selection counts the trainer's steps until its choice is final; a loss scaler may skip some."""
    count, step = state.step_count - state.carried, manifest.step
    choosing = state.round < state.config.get("rounds", 1)
    may_skip = "optimizer.pt" not in manifest.files or "scaler.pt" in manifest.files
    if count > step or (choosing and count < step and not may_skip):
        raise StateError(
            f"the selection in {folder} is at step {count}, and the training at step {step}: the files of two "
            "checkpoints were mixed, resume from another one."
        )


def _check_names(names: set[str], state: State) -> None:
    all_names, live = set(state.names), state.live.keys()
    if names != all_names and names != live:
        strange = sorted(names - all_names) or sorted(live - names) or sorted(all_names - names)
        raise StateError(
            f"the state is of {len(all_names)} adapters, and this model has {len(names)}; {strange[0]!r} is not in "
            "both: build the model as in the first run."
        )


def _check_fit(adapters: list[LoraAdapter], state: State) -> None:
    """The adapters are as they began, or as the state has them; the state has nothing that they cannot become."""
    columns = [state.column(name) for name in ("kinds", "sizes", "start_ranks", "omega")]
    folded = state.round == state.config.get("rounds", 1)
    began = all(adapter.rank == columns[2][adapter.name] for adapter in adapters)
    for adapter in adapters:
        kind, size, start, omega = (column[adapter.name] for column in columns)
        rank, scaling = state.live.get(adapter.name, (start, None))
        if adapter.rank != (start if began else rank) or adapter.kind != kind or _size_at(adapter, start) != size:
            raise StateError(
                f"adapter {adapter.name!r} has rank {adapter.rank} and {adapter.size} parameters, and had rank "
                f"{start} and {size} when the run began: build the model as in the first run."
            )
        if rank != start and (rank > adapter.max_rank or rank % adapter.rank_unit):
            raise StateError(
                f"the state has adapter {adapter.name!r} with rank {rank}, and its layer takes multiples of "
                f"{adapter.rank_unit} up to {adapter.max_rank}: resume from an untouched checkpoint."
            )
        own = (adapter.scaling, adapter.scaling * omega) if folded else (adapter.scaling,)
        if scaling is not None and not any(math.isclose(scaling, one, rel_tol=1e-9) for one in own):
            raise StateError(
                f"adapter {adapter.name!r} has scaling {adapter.scaling}, and the state says {scaling}: build the "
                "model as in the first run, with the same lora_alpha."
            )


def _size_at(adapter: LoraAdapter, rank: int) -> int | None:
    """Parameters of the adapter at another rank, with which A and B grow. None if it cannot have that rank."""
    if rank == adapter.rank:
        return adapter.size
    factors = sum(numel(factor) for factor in adapter.factors)
    return None if factors * rank % adapter.rank else adapter.size - factors + factors * rank // adapter.rank


def _shapes(model: PeftModel, adapter_name: str, save_embedding_layers: bool = False) -> dict[str, list[int]]:
    state = get_peft_model_state_dict(model, None, adapter_name, save_embedding_layers=save_embedding_layers)
    return {key: list(value.shape) for key, value in state.items()}


def saved_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a file, by its name there. A damaged file raises a `StateError`."""
    try:
        with safe_open(path, "pt") as file:
            return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise StateError(f"{path} is damaged ({error}): resume from another checkpoint.") from error


def _check_weights(model: nn.Module, adapter_name: str, directory: Path, waiting: Iterable[str]) -> None:
    """Where PEFT's file is in the checkpoint: PEFT would load what fits of it, and say nothing of the rest.

    Adapters that are switched off, and could not leave before the checkpoint was written, are in the file all the
    same.
    """
    model = unwrap_model(model)
    path = directory / ("" if adapter_name == "default" else adapter_name) / SAFETENSORS_WEIGHTS_NAME
    if not isinstance(model, PeftModel) or not path.is_file():
        return
    saved = saved_shapes(path)
    own = _shapes(model, adapter_name)
    strange = [key for key in own if own[key] != saved.get(key)]
    extra = saved.keys() - own.keys()
    if extra:  # PEFT adds embeddings that were resized or adapted, and would load any other weight of the model
        embeddings = _shapes(model, adapter_name, save_embedding_layers=True)
        extra = {key for key in extra if saved[key] != embeddings.get(key)}
    strange += [key for key in extra if not any(f".{name}." in key for name in waiting)]
    if strange:
        raise StateError(
            f"{path} has other adapters or ranks than {STATE_FILE} beside it ({sorted(strange)[0]!r} is not the same "
            "in both): the files of two checkpoints were mixed, resume from another one."
        )
