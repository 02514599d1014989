"""FSDP of version 1, which flattens parameters."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapters import WRAPPED, unwrap_model
from ..errors import ModelError
from ..restoring import same_parameters
from ..tensors import forget_whole_, note_whole_
from .phased import Phased


class Fsdp1(Phased):
    """Serves a model whose parameters FSDP1 has flattened."""

    title = "FSDP (version 1)"

    def attach(self, model: nn.Module) -> None:
        """Note how large each parameter is as a whole, and into how many parts it is cut."""
        for unit in flat_units(model):
            handle = unit._handle
            if handle.flat_param._params is None:
                raise ModelError(
                    "FSDP (version 1) has flattened the adapters into one parameter: set use_orig_params=True for it."
                )
            parts = handle.world_size if handle.uses_sharded_strategy else 1
            for parameter, shape in zip(handle.flat_param._params, handle.flat_param._shapes, strict=True):
                note_whole_(parameter, shape.numel(), parts)

    def begin_(self, model: nn.Module, accelerator: Any) -> None:
        """With mixed precision, cast modules that train, each of which becomes one flat parameter, to float32.

        Accelerate casts the flat parameters when they are made. Until the first step, the optimizer finds the old
        dtype in the parameters, and would resume with moments of 16 bits for gradients of 32.
        """
        for module in model.modules() if accelerator.mixed_precision != "no" else ():
            weight = getattr(module, "weight", None)
            if not [*module.children()] and isinstance(weight, nn.Parameter) and weight.requires_grad:
                module.float()

    def load_(self, model: Any, checkpoint: str | Path) -> None:
        # PEFT 0.21 finds no adapter in a model of FSDP1 to load into.
        with same_parameters(model):
            for name in model.active_adapters:
                place = Path(checkpoint) / name
                model.load_adapter(place if place.is_dir() else checkpoint, name, is_trainable=True)

    @torch.no_grad()
    def to_plain_(self, model: nn.Module) -> nn.Module:
        """The model without FSDP1: whole parameters on the CPU of every process, and no wrapper."""
        from torch.distributed.fsdp import FullyShardedDataParallel

        for unit in flat_units(model):  # one at a time, for the accelerator may not have room for all
            with FullyShardedDataParallel.summon_full_params(unit, recurse=False, writeback=False):
                whole = [(p, p.detach().to("cpu", copy=True)) for p in unit._handle.flat_param._params]
            for parameter, value in whole:  # the same objects, for quantized ones have attributes
                parameter.data, parameter.grad = value, None
                parameter.__dict__.pop("_fsdp_flattened", None)
                forget_whole_(parameter)
        return _unwrap_(model)[0]


def flat_units(model: nn.Module) -> list[Any]:
    """The modules whose parameters FSDP1 has flattened."""
    modules = model.modules()
    return [m for m in modules if type(m).__name__ == "FullyShardedDataParallel" and m._has_params]


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
