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
from ..tensors import gradient_of, local, row_dots, shards, to_vector, whole
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
        self._width = 0  # parameters of an adapter, at most
        self._before: list[Tensor] | None = None
        self._variants: list[tuple[int, LoraAdapter]] = []
        self._norms: list[tuple[int, Tensor, Tensor]] = []  # of DoRA: adapter, norm, magnitude
        self._hook = optimizer.register_step_pre_hook(self._remember)

    @torch.no_grad()
    def _remember(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._blocks:
            self._blocks = _blocks_of(self._adapters)
            self._width = max(len(adapter.parameters) for adapter in self._adapters)
            self._variants = [(index, adapter) for index, adapter in enumerate(self._adapters) if adapter.variant]
        # not only those with a gradient: a closure (Lightning's loops have one) brings them during the step
        self._before = [block.stack(block.parameters) for block in self._blocks]
        magnitudes = [(i, adapter, adapter.magnitude) for i, adapter in self._variants]
        self._norms = [(i, a.weight_norm(), m.detach().clone()) for i, a, m in magnitudes if m is not None]

    @torch.no_grad()
    def take(self, grad_scale: float) -> Tensor | None:
        """Credit of the latest optimizer step, shape `(n,)`; None if there was no step since the last call."""
        before, self._before = self._before, None
        if before is None:
            return None
        found = [gain for block, old in zip(self._blocks, before, strict=True) if (gain := _gain(block, old))]
        # FSDP1 may have left this process no part of any adapter.
        if not found and any(block.entries for block in self._blocks):
            raise TrainingError(
                "no adapter has a gradient: call step() after backward() and optimizer.step(), and before zero_grad()."
            )
        norms = [(i, _credit_of_norm(self._adapters[i], norm, magnitude)) for i, norm, magnitude in self._norms]
        return self._add_up(found, [(i, credit) for i, credit in norms if credit is not None]).double()

    def _add_up(self, found: list["_Gain"], norms: list[tuple[int, Tensor]]) -> Tensor:
        """The adapters' credits, after one transfer from each device. Float32, shape `(n,)`."""
        credit = torch.zeros(len(self._adapters))
        if not found:
            return credit
        sizes = [len(gain.values) for gain in found]
        values = to_vector([*(gain.values for gain in found), *(one.view(1) for _, one in norms)]).float()
        terms = torch.zeros(len(credit), self._width)
        for gain, value in zip(found, values[: sum(sizes)].split(sizes), strict=True):
            block, rows = gain.block, gain.rows
            terms[block.owners[rows], block.places[rows]] = value * block.parts[rows]
        for term in terms.unbind(1):  # in the order of an adapter's parameters, on every device
            credit -= term
        for (index, _), value in zip(norms, values[sum(sizes) :], strict=True):
            credit[index] += value
        return credit

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """Add up the credit over the steps."""
        self.score = self.score + evidence

    def unseen(self) -> Tensor:
        """An adapter that never ran, or never moved, has a credit of exactly 0."""
        return self.score == 0

    def keep(self, mask: Tensor) -> None:
        self._blocks, self._variants, self._norms = [], [], []  # or what leaves the model would stay in memory
        self._adapters = [adapter for adapter, kept in zip(self._adapters, mask.tolist(), strict=True) if kept]
        super().keep(mask)

    def close(self) -> None:
        self._hook.remove()
        self._before, self._blocks, self._variants, self._norms = None, [], [], []


@dataclass(frozen=True)
class _Block:
    """Parameters of one shape, dtype and device, whose credit is computed at once.

    Attributes:
        parameters: The m parameters.
        entries: Of each, on this process.
        owners: The index of each one's adapter, shape `(m,)`.
        places: Which of its adapter's parameters each one is, shape `(m,)`.
        parts: Into how many parts each one is cut (FSDP), shape `(m,)`. This process's part times the number of parts
            is credited: the mean over the processes is the whole.
    """

    parameters: list[nn.Parameter]
    entries: int
    owners: Tensor
    places: Tensor
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
        where = torch.tensor(owners), torch.tensor(places)
        blocks.append(_Block(parameters, local(parameters[0]).numel(), *where, parts))
    return blocks


@dataclass(frozen=True)
class _Gain:
    """What the updates of a block changed in the loss, to first order.

    Attributes:
        rows: Which of the block's parameters have a gradient.
        values: `<gradient, update>` of each of these, on their device. Float32.
    """

    block: _Block
    rows: list[int] | slice
    values: Tensor


def _gain(block: _Block, before: Tensor) -> _Gain | None:
    """The gain of a block; None if none of its parameters has a gradient."""
    pairs = [(p, gradient_of(p) if p.requires_grad else None) for p in block.parameters]
    rows = [row for row, (_, gradient) in enumerate(pairs) if gradient is not None]
    if not rows:
        return None
    complete = len(rows) == len(pairs)
    if not complete:
        whole = before.unbind()  # for an index that is sent to an accelerator, the host would wait
        before = torch.stack([whole[row] for row in rows])
    gradients = block.stack([pairs[row][1] for row in rows]).float()
    moved = block.stack([pairs[row][0] for row in rows]).float()
    moved -= before.float()
    return _Gain(block, slice(None) if complete else rows, row_dots(gradients, moved))


def _credit_of_norm(adapter: LoraAdapter, norm: Tensor, magnitude: Tensor) -> Tensor | None:
    """What the change of DoRA's weight norm, from `norm` to the present one, did to the loss, shape `()`."""
    now = adapter.magnitude
    gradient = None if now is None or not now.requires_grad else gradient_of(now)
    if gradient is None:
        return None
    slope = gradient.float() * magnitude.float() / norm.float()
    return whole((slope * (adapter.weight_norm() - norm).float()).sum())
