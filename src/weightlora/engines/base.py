"""The protocol of an engine, and what one process without a wrapper needs of it."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..adapters.surgery import disconnect_
from . import processes


class Engine:
    """How evidence is shared, and how adapters leave, under whatever wraps and trains the model.

    This class serves a model that nothing wraps. The selector calls `attach` once, `average` in every step of the
    selection phase, `agree` and `remove_` at a decision, and `rewire_` after adapters left or grew.

    Attributes:
        can_grow: Whether the parameters of an adapter can change their shape.
        waiting: Adapters that lost, are switched off, and are still on the model. Empty where adapters leave at once.
    """

    can_grow: ClassVar[bool] = True

    def __init__(self) -> None:
        self.waiting: list[LoraAdapter] = []

    @classmethod
    def holds(cls, model: nn.Module, optimizer: Optimizer) -> bool:
        """Whether this engine holds the model."""
        return True

    def attach(self, model: nn.Module) -> None:
        """Prepare to serve the model.

        Raises:
            ModelError: If adapters could not leave this model.
        """

    def average(self, evidence: Tensor) -> Tensor:
        """Mean of the evidence over all processes."""
        return processes.average(evidence)

    def agree(self, score: Tensor) -> Tensor:
        """The same scores on all processes: those of the first."""
        return processes.share(score)

    def remove_(self, model: nn.Module, losers: list[LoraAdapter], optimizer: Optimizer) -> None:
        """Take adapters out of the model and the optimizer."""
        disconnect_(model, losers, optimizer)

    def rewire_(self, model: nn.Module) -> None:
        """Make the wrapper forget the parameters that left, and learn of those that came.

        Raises:
            RuntimeError: If this version of torch has another wrapper inside.
        """


def cannot_rewire(error: Exception) -> RuntimeError:
    """The error for a torch whose wrappers are built differently."""
    return RuntimeError(
        f"torch {torch.__version__} cannot be told that adapters left the model ({error}): choose on one process, "
        "and train the chosen adapters on many."
    )
