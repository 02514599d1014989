"""Update credit: the loss decrease that each adapter's own updates bought, to first order.

`c_i = - sum_t ( <dL_t/dA_i, A_i(t+1) - A_i(t)> + <dL_t/dB_i, B_i(t+1) - B_i(t)> )`: the integral of the gradient along
the training path, split by adapter. With small steps the credits of all trainable parameters add up to the decrease of
the loss. Nothing is added to the forward pass; the optimizer's own gradients and updates are all that is needed.

DoRA's output depends on its magnitude m and on the norm `n = ||W + s B A||` through `m / n` alone, and PEFT leaves n
out of the gradient. What is missing is at hand, `dL/dn = - dL/dm m / n`: n counts as another parameter of the adapter.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..errors import TrainingError
from ..tensors import local, shards, to_vector
from .base import Best, Rule, Settings


class UpdateCredit(Rule):
    """Copies the adapters' parameters before each optimizer step, and computes the credit after it."""

    name = "credit"
    score_label = "update credit"
    least_steps = 1
    shares_parameters = True  # credit adds up over parameters

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        super().__init__(adapters, optimizer, settings)
        self._adapters = adapters
        self._before: list[list[tuple[nn.Parameter, Tensor]]] | None = None
        self._norms: list[Tensor | None] = []  # of DoRA
        self._hook = optimizer.register_step_pre_hook(self._remember)

    def _remember(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # not only those with a gradient: a closure (Lightning's loops have one) brings them during the step
        self._before = [[(p, p.detach().clone()) for p in a.parameters if p.requires_grad] for a in self._adapters]
        self._norms = [None if a.magnitude is None else a.weight_norm() for a in self._adapters]

    @torch.no_grad()
    def take(self, grad_scale: float) -> Tensor | None:
        """Credit of the latest optimizer step, shape `(n,)`; None if there was no step since the last call."""
        before, self._before = self._before, None
        if before is None:
            return None
        # FSDP1 may have left this process no part of any adapter.
        holds = any(local(p).numel() for adapter in self._adapters for p in adapter.parameters)
        if holds and all(parameter.grad is None for pairs in before for parameter, _ in pairs):
            raise TrainingError(
                "no adapter has a gradient: call step() after backward() and optimizer.step(), and before zero_grad()."
            )
        evidence = []
        for pairs, norm, adapter in zip(before, self._norms, self._adapters, strict=True):
            evidence.append(_credit(pairs, adapter) + (0 if norm is None else _credit_of_norm(pairs, adapter, norm)))
        return to_vector(evidence)

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """Add up the credit over the steps."""
        self.score = self.score + evidence

    def keep(self, mask: Tensor) -> None:
        self._adapters = [adapter for adapter, kept in zip(self._adapters, mask.tolist(), strict=True) if kept]
        super().keep(mask)

    def close(self) -> None:
        self._hook.remove()
        self._before = None


def _credit(pairs: list[tuple[nn.Parameter, Tensor]], adapter: LoraAdapter) -> Tensor:
    """Of sharded factors (FSDP), this process's part times the number of parts: their mean is the whole."""
    total = torch.zeros((), device=adapter.factors[1].device)
    for parameter, before in pairs:
        if parameter.grad is not None:
            gradient, now, old = (local(t).float().flatten() for t in (parameter.grad, parameter, before))
            total -= shards(parameter) * torch.dot(gradient, now - old)
    return total


def _credit_of_norm(pairs: list[tuple[nn.Parameter, Tensor]], adapter: LoraAdapter, norm: Tensor) -> Tensor:
    """What the change of DoRA's weight norm, from `norm` to the present one, did to the loss."""
    total = torch.zeros((), device=norm.device)
    for parameter, before in pairs:
        if parameter is adapter.magnitude and parameter.grad is not None:
            slope = parameter.grad.float() * before.float() / norm.float()
            total += (slope * (adapter.weight_norm() - norm).float()).sum()
    return total
