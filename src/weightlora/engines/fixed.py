"""Engines that lay parameters out once and for all: refused, with a remedy."""

from torch import nn
from torch.optim import Optimizer

from ..errors import ModelError

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
