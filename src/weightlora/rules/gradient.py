"""A probe before training: the gradients of adapters that no step has moved yet.

While `B = 0`, the update of an adapter is zero, A has no gradient, and `dL/dB = s G A^T` with the gradient G of the
module's weight: what a first step can reach through this A. Its energy `||dL/dB||_F^2` over a few batches is PAGE's
score (arXiv 2605.06183); here it ranks all adapters at once.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..tensors import local, shards, to_vector
from .base import Best, Rule, Settings


class GradientNorm(Rule):
    """The root of the mean energy of an adapter's gradients over the batches of the probe."""

    name = "gradient"
    score_label = "gradient norm"
    probes = True
    shares_parameters = True

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        super().__init__(adapters, optimizer, settings)
        self._adapters = adapters
        self._energy = self.score.clone()

    @torch.no_grad()
    def take(self, grad_scale: float) -> Tensor:
        """Energy of the gradients of one batch, shape `(n,)`."""
        return to_vector([_energy(adapter) for adapter in self._adapters]) / grad_scale**2

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """Take in the energies of batch number `step`."""
        self._energy = self._energy + evidence
        self.score = (self._energy / step).sqrt()


def _energy(adapter: LoraAdapter) -> Tensor:
    """Of sharded factors (FSDP), this process's part times the number of parts: their mean is the whole."""
    total = torch.zeros((), device=adapter.factors[1].device)
    for factor in adapter.factors:
        if factor.grad is not None:
            total += shards(factor) * local(factor.grad).float().pow(2).sum()
    return total
