"""Two phases in one `train()`, for engines that parameters cannot leave in the middle of a run (FSDP1).

The first ends with a choice that the engine cannot follow: the losers only fall silent. A checkpoint of Trainer's own
carries step, data position, learning rate and the survivors' moments over; the model is brought back to plain modules,
the losers leave it, and Trainer resumes.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..adapters import WRAPPED, unwrap_model
from ..adapters.surgery import describe_, disconnect_
from ..selector import WeightLora
from ..tensors import WHOLE
from .distributed import flat_units


def train_in_phases(trainer: Any, callback: Any, train: Callable[..., Any], checkpoint: str | None) -> Any:
    """Trainer's `train()`, and once more after every round of the selection.

    Args:
        trainer: Its model is in no engine yet, and has the structure of the checkpoint.
        callback: The `WeightLoraCallback`.
        train: Trainer's own; takes the checkpoint to resume from, or None.
        checkpoint: Where the run is resumed from, or None.

    Returns:
        What the last `train()` did.
    """
    callback.in_place = False
    if checkpoint:
        # PEFT 0.21 finds no adapter in a model of FSDP1 to load into.
        for name in trainer.model.active_adapters:
            place = Path(checkpoint) / name
            trainer.model.load_adapter(place if place.is_dir() else checkpoint, name, is_trainable=True)
    elif callback.config.select_steps == 0:
        trainable = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        callback.go_on(WeightLora(trainer.model, torch.optim.SGD(trainable), callback.config).state_dict())
    output = train(checkpoint)
    while callback.selector.silent:
        release_(trainer, callback.selector)
        if callback.paused:
            callback.go_on(callback.selector.state_dict())
            output = train(str(checkpoint_dir(trainer.args, trainer.state)))
        else:
            trainer.model = trainer.model_wrapped = trainer.accelerator.prepare(trainer.model)
    return output


def checkpoint_dir(args: TrainingArguments, state: TrainerState) -> Path:
    """Where Trainer writes the checkpoint of the present step."""
    return Path(args.output_dir or "") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def needs_phases(trainer: Any) -> bool:
    """Whether the Trainer's engine will lay parameters out once and for all.

    Raises:
        ValueError: If the Trainer's checkpoints could not carry a run over.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is None or plugin.fsdp_version != 1:
        return False
    for setting in ("save_only_model", "load_best_model_at_end", "ignore_data_skip"):
        if getattr(trainer.args, setting):
            raise ValueError(
                f"{setting}=True does not go with FSDP (version 1), where training goes on from a checkpoint after "
                "the selection: set it to False."
            )
    if "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ValueError(
            f"state_dict_type={plugin.state_dict_type} of FSDP (version 1) saves no adapter: set 'FULL_STATE_DICT'."
        )
    return True


def release_(trainer: Any, selector: WeightLora) -> None:
    """Take the Trainer's model out of its engine, and the silent adapters out of the model.

    The next `train()` wraps the model and builds the optimizer and the scheduler anew.
    """
    trainer.accelerator.wait_for_everyone()  # the checkpoint is whole
    model = to_plain_(trainer.model)
    disconnect_(model, selector.silent)
    describe_(model, selector.adapter_name)
    selector.silent = []
    selector.model = trainer.model = trainer.model_wrapped = trainer.callback_handler.model = model
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
    trainer.accelerator.free_memory()


@torch.no_grad()
def to_plain_(model: nn.Module) -> nn.Module:
    """The model inside FSDP1, whose parameters are whole again, on the CPU of every process, in no wrapper."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    for unit in flat_units(model):  # one at a time, for the accelerator may not have room for all
        with FullyShardedDataParallel.summon_full_params(unit, recurse=False, writeback=False):
            whole = [(p, p.detach().to("cpu", copy=True)) for p in unit._handle.flat_param._params]
        for parameter, value in whole:  # the same objects, for quantized ones have attributes
            parameter.data, parameter.grad = value, None
            for mark in (WHOLE, "_fsdp_flattened"):
                parameter.__dict__.pop(mark, None)
    return _unwrap_(model)[0]


@contextlib.contextmanager
def unwrapped(model: nn.Module) -> Iterator[None]:
    """In this context no module inside the model is in a wrapper: PEFT 0.21 finds no adapter behind one to save."""
    _, wrapped = _unwrap_(model)
    try:
        yield
    finally:
        for parent, name, child in wrapped:
            parent._modules[name] = child


def _unwrap_(model: nn.Module) -> tuple[nn.Module, list[tuple[nn.Module, str, nn.Module]]]:
    """Put modules in the place of the wrappers around them; returns the outermost, and where there were wrappers."""
    inner, wrapped = unwrap_model(model), []
    for parent in inner.modules():
        for name, child in list(parent.named_children()):
            if _inside(child) is not child:
                wrapped.append((parent, name, child))
                parent._modules[name] = _inside(child)
    return inner, wrapped


def _inside(module: nn.Module) -> nn.Module:
    for name in WRAPPED:
        if name in module._modules:
            return _inside(module.get_submodule(name))
    return module
