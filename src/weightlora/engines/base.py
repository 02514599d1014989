"""The protocol of an engine, and what one process without a wrapper needs of it."""

import warnings
from typing import Any, ClassVar

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapters import LoraAdapter, unwrap_model
from ..adapters.surgery import disconnect_
from ..errors import ModelError, TrainingError
from ..optimizers import with_hooks
from . import processes

COMPARISONS = 2  # steps after a disconnect: a new reducer takes another path in its first step than in later ones


class Engine:
    """How evidence is shared, and how adapters leave, under whatever wraps and trains the model.

    This class serves a model that nothing wraps. The selector calls `attach` and `optimizer_of` once, `average` in
    every step of the selection phase, `agree`, `settle` and `remove_` at a decision, `rewire_` after adapters left or
    grew, `close` after the last decision, and `compare` in every step.

    Attributes:
        can_grow: Whether the parameters of an adapter can change their shape.
        waiting: Adapters that lost, are switched off, and are still on the model. Empty where adapters leave at once.
        start: The `State` that the selection begins with. Processes compare theirs before they first share anything.
    """

    can_grow: ClassVar[bool] = True

    def __init__(self) -> None:
        self.waiting: list[LoraAdapter] = []
        self.start: Any = None
        self._comparisons = 0
        self._agreed = True

    @classmethod
    def holds(cls, model: nn.Module) -> bool:
        """Whether this engine holds the model. Asked of those in `ENGINES` alone."""
        return True

    def attach(self, model: nn.Module) -> None:
        """Prepare to serve the model.

        Raises:
            ModelError: If adapters could not leave this model.
        """

    def optimizer_of(self, optimizer: Optimizer) -> Optimizer:
        """The torch optimizer whose hooks run at each step, and whose first group has the learning rate.

        Raises:
            ConfigError: If there is none.
        """
        return with_hooks(optimizer)

    def backward(self, loss: Tensor) -> None:
        """Add up gradients outside of a training step, for a probe."""
        loss.backward()

    def average(self, evidence: Tensor) -> Tensor:
        """Mean of the evidence over all processes.

        Raises:
            ConfigError: If they select with other settings or other adapters.
        """
        self._meet()
        return processes.average(evidence)

    def agree(self, score: Tensor) -> Tensor:
        """The same scores on all processes: those of the first.

        Raises:
            ConfigError: If they select with other settings or other adapters.
        """
        self._meet()
        return processes.share(score)

    def _meet(self) -> None:
        if self.start is not None and processes.world_size() > 1:
            processes.check_start(self.start)
            self.start = None

    def settle(self, model: nn.Module, names: list[str]) -> None:
        """Check that all processes are about to keep the adapters of these names, and note if their weights agree.

        Raises:
            ModelError: If they keep others, or adapters are merged into their base layers.
        """
        for name, module in unwrap_model(model).named_modules():
            if isinstance(module, LoraLayer) and module.merged:
                raise ModelError(
                    f"the adapter on {name!r} is merged into its base layer, where it would stay if it was removed: "
                    "call model.unmerge_adapter() before the choice."
                )
        self._agreed = processes.check_agreement(names, model)
        if not self._agreed:
            warnings.warn(
                "the processes hold different weights already at the choice, so they are not compared after it: wrap "
                "the model in DDP, unless they are meant to differ (local SGD).",
                stacklevel=2,
            )

    def remove_(self, model: nn.Module, losers: list[LoraAdapter], optimizer: Optimizer) -> None:
        """Take adapters out of the model and the optimizer."""
        disconnect_(model, losers, optimizer)

    def rewire_(self, model: nn.Module) -> None:
        """Make the wrapper forget the parameters that left, and learn of those that came.

        Raises:
            RuntimeError: If this version of torch has another wrapper inside.
        """
        self._comparisons = COMPARISONS if self._agreed else 0

    def close(self) -> None:
        """Stop gathering evidence: the choice is final."""

    def compare(self, model: nn.Module) -> None:
        """In the first two steps after adapters left, check that all processes still train the same weights.

        Raises:
            TrainingError: If they do not, on every process.
        """
        if self._comparisons:
            self._comparisons -= 1
            if not processes.hold_one_model(model):
                raise TrainingError(
                    f"{processes.world_size()} processes trained the same weights before adapters left the model, and "
                    f"different ones {COMPARISONS - self._comparisons} step(s) after it, so gradients are no longer "
                    "averaged: choose on one process, and train the chosen adapters on many."
                )


def cannot_rewire(error: Exception) -> RuntimeError:
    """The error for a torch whose wrappers are built differently."""
    return RuntimeError(
        f"torch {torch.__version__} cannot be told that adapters left the model ({error}): choose on one process, "
        "and train the chosen adapters on many."
    )
