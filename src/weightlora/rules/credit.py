"""Update credit: the loss decrease that each adapter's own updates bought, to first order.

`c_i = - sum_t ( <dL_t/dA_i, A_i(t+1) - A_i(t)> + <dL_t/dB_i, B_i(t+1) - B_i(t)> )`: the integral of the gradient along
the training path, split by adapter. With small steps the credits of all trainable parameters add up to the decrease of
the loss. Nothing is added to the forward pass; the optimizer's own gradients and updates are all that is needed.

DoRA's output depends on its magnitude m and on the norm `n = ||W + s B A||` through `m / n` alone, and PEFT leaves n
out of the gradient. What is missing is at hand, `dL/dn = - dL/dm m / n`: n counts as another parameter of the adapter.

Parameters of one shape are copied and compared as one tensor, so that the operations of a step do not grow in number
with the adapters. Only on a CPU the dot products are taken one by one: batched ones round differently there.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..errors import TrainingError
from ..tensors import gradient_of, local, row_dots, shards, to_vector
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
        self._blocks: list[_Block] = []  # found at the first step of a round: between rounds, adapters grow
        self._before: list[Tensor] | None = None
        self._norms: list[tuple[int, Tensor, Tensor]] = []  # of DoRA: adapter, norm, magnitude
        self._hook = optimizer.register_step_pre_hook(self._remember)

    @torch.no_grad()
    def _remember(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._blocks = self._blocks or _blocks_of(self._adapters)
        # not only those with a gradient: a closure (Lightning's loops have one) brings them during the step
        self._before = [block.stack(block.parameters) for block in self._blocks]
        magnitudes = [(i, a, a.magnitude) for i, a in enumerate(self._adapters) if a.variant]
        self._norms = [(i, a.weight_norm(), m.detach().clone()) for i, a, m in magnitudes if m is not None]

    @torch.no_grad()
    def take(self, grad_scale: float) -> Tensor | None:
        """Credit of the latest optimizer step, shape `(n,)`; None if there was no step since the last call."""
        before, self._before = self._before, None
        if before is None:
            return None
        # FSDP1 may have left this process no part of any adapter.
        holds = any(block.entries for block in self._blocks)
        if holds and not any(_trains(parameter) for block in self._blocks for parameter in block.parameters):
            raise TrainingError(
                "no adapter has a gradient: call step() after backward() and optimizer.step(), and before zero_grad()."
            )
        gains = to_vector([_gains(block, old) for block, old in zip(self._blocks, before, strict=True)]).float()
        terms = torch.zeros(len(self._adapters), 1 + max(max(block.places) for block in self._blocks))
        for block, gain in zip(self._blocks, gains.split([len(b.parameters) for b in self._blocks]), strict=True):
            terms[block.owners, block.places] = gain * block.parts
        credit = torch.zeros(len(self._adapters))
        for term in terms.unbind(1):  # in the order of an adapter's parameters, on every device
            credit -= term
        for i, norm, magnitude in self._norms:
            credit[i] += _credit_of_norm(self._adapters[i], norm, magnitude).cpu()
        return credit.double()

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """Add up the credit over the steps."""
        self.score = self.score + evidence

    def unseen(self) -> Tensor:
        """An adapter that never ran, or never moved, has a credit of exactly 0."""
        return self.score == 0

    def keep(self, mask: Tensor) -> None:
        self._blocks, self._norms = [], []  # or what leaves the model would stay in memory
        self._adapters = [adapter for adapter, kept in zip(self._adapters, mask.tolist(), strict=True) if kept]
        super().keep(mask)

    def close(self) -> None:
        self._hook.remove()
        self._before, self._blocks, self._norms = None, [], []


@dataclass(frozen=True)
class _Block:
    """Parameters of one shape, dtype and device, whose credit is computed at once.

    Attributes:
        parameters: The m parameters.
        entries: Of each, on this process.
        owners: The index of each one's adapter.
        places: Which of its adapter's parameters each one is.
        parts: Into how many parts each one is cut (FSDP), shape `(m,)`. This process's part times the number of parts
            is credited: the mean over the processes is the whole.
    """

    parameters: list[nn.Parameter]
    entries: int
    owners: list[int]
    places: list[int]
    parts: Tensor

    def stack(self, tensors: list[Any]) -> Tensor:
        """Copy such tensors into the rows of one matrix, shape `(len(tensors), entries)`."""
        return torch.stack([local(tensor) for tensor in tensors]).reshape(len(tensors), self.entries)


def _blocks_of(adapters: list[LoraAdapter]) -> list[_Block]:
    alike: defaultdict[Any, list[tuple[nn.Parameter, int, int]]] = defaultdict(list)
    for owner, adapter in enumerate(adapters):
        for place, parameter in enumerate(adapter.parameters):
            own = local(parameter)
            alike[own.shape, own.dtype, own.device].append((parameter, owner, place))
    blocks = []
    for members in alike.values():
        parameters, owners, places = map(list, zip(*members, strict=True))
        parts = torch.tensor([shards(parameter) for parameter in parameters], dtype=torch.float32)
        blocks.append(_Block(parameters, local(parameters[0]).numel(), owners, places, parts))
    return blocks


def _trains(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and gradient_of(parameter) is not None


def _gains(block: _Block, before: Tensor) -> Tensor:
    """`<gradient, update>` of each parameter, 0 where there is no gradient. Float32, shape `(m,)`."""
    rows = [row for row, parameter in enumerate(block.parameters) if _trains(parameter)]
    gains = torch.zeros(len(before), device=before.device)
    if rows:
        parameters = [block.parameters[row] for row in rows]
        gradients, moved = block.stack([gradient_of(p) for p in parameters]).float(), block.stack(parameters).float()
        moved -= (before if len(rows) == len(before) else before[rows]).float()
        gains[rows] = row_dots(gradients, moved)
    return gains


def _credit_of_norm(adapter: LoraAdapter, norm: Tensor, magnitude: Tensor) -> Tensor:
    """What the change of DoRA's weight norm, from `norm` to the present one, did to the loss."""
    now = adapter.magnitude
    if now is None or not _trains(now):
        return torch.zeros(())
    gradient = gradient_of(now)
    assert gradient is not None
    slope = gradient.float() * magnitude.float() / norm.float()
    return (slope * (adapter.weight_norm() - norm).float()).sum()
