"""Engines: how adapters leave whatever wraps and trains the model. One file each, one protocol (`Engine`)."""

from torch import nn
from torch.optim import Optimizer

from .base import Engine
from .ddp import Ddp
from .deepspeed import DeepSpeed
from .fsdp1 import Fsdp1, flat_units
from .fsdp2 import Fsdp2, is_sharded, whole_weights
from .phased import Phased, refuse_fixed
from .processes import is_first

__all__ = [
    "ENGINES",
    "Ddp",
    "DeepSpeed",
    "Engine",
    "Fsdp1",
    "Fsdp2",
    "Phased",
    "engine_for",
    "flat_units",
    "is_first",
    "is_sharded",
    "whole_weights",
]

ENGINES: tuple[type[Engine], ...] = (Fsdp2, Ddp, Engine)
"""Those that the selector picks by itself; the first that holds the model serves it."""


def engine_for(model: nn.Module, optimizer: Optimizer) -> Engine:
    """The engine that serves the model.

    Raises:
        ModelError: If parameters cannot leave what holds the model.
    """
    refuse_fixed(model, optimizer)
    return next(engine() for engine in ENGINES if engine.holds(model))
