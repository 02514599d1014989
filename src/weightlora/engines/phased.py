"""Engines that lay parameters out once and for all: losers are switched off, and leave between two phases."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..adapters.surgery import switch_off_
from ..errors import ModelError
from .base import Engine

FIXED = {
    "FullyShardedDataParallel": "FSDP (version 1)",
    "DeepSpeedEngine": "DeepSpeed",
    "DeepSpeedOptimizerWrapper": "DeepSpeed",  # all of it that a Trainer shows to callbacks
}


def refuse_fixed(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise a `ModelError` if parameters cannot leave the engine around the model."""
    for thing in (*model.modules(), optimizer):
        for kind in type(thing).__mro__:
            if kind.__name__ in FIXED:
                raise ModelError(
                    f"this model is held by {FIXED[kind.__name__]}, from which parameters cannot leave: use "
                    "WeightLoraTrainer (or its mixin), which disconnects between two phases."
                )


class Phased(Engine):
    """Serves a Trainer that stops after the decision, takes `waiting` out of the plain model, and goes on.

    The selector never picks such an engine by itself: without the second phase, the adapters would stay.

    Attributes:
        title: What users call the engine.
    """

    can_grow = False
    title: ClassVar[str]

    def remove_(self, model: nn.Module, losers: list[LoraAdapter], optimizer: Optimizer) -> None:
        switch_off_(losers, optimizer)
        self.waiting += losers

    def begin_(self, model: nn.Module, accelerator: Any) -> None:
        """Prepare the plain model before it gets weights or an engine."""

    def load_(self, model: nn.Module, checkpoint: str | Path) -> None:
        """Load weights that the engine itself does not load, before it gets the model."""

    @contextlib.contextmanager
    def serving(self, accelerator: Any) -> Iterator[None]:
        """In this context the accelerator prepares models for a selection."""
        yield

    def hold_again_(self, trainer: Any) -> None:
        """Let the engine hold the plain model of a Trainer that has ended its training."""
        trainer.model = trainer.model_wrapped = trainer.accelerator.prepare(trainer.model)

    def to_plain_(self, model: nn.Module) -> nn.Module:
        """The model without what held it: whole parameters in every process, and no wrapper."""
        raise NotImplementedError
