"""Update credit: the decrease of the loss by each adapter's own updates, to first order.

`c_i = - sum_t ( <dL_t/dA_i, A_i(t+1) - A_i(t)> + <dL_t/dB_i, B_i(t+1) - B_i(t)> )`: the integral of the gradient along
the training path, split by adapter. With small steps the credits of all trainable parameters add up to the decrease of
the loss. Nothing is added to the forward pass; the optimizer's own gradients and updates are all that is needed.

DoRA's output depends on its magnitude m and on the norm `n = ||W + s B A||` through `m / n` alone, and PEFT leaves n
out of the gradient. What is missing is at hand, `dL/dn = - dL/dm m / n`: n counts as another parameter of the adapter.

Parameters of one shape are copied and compared as one tensor (a `Stack`). Only on a CPU the dot products are taken one
by one: batched ones round differently there.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..errors import TrainingError
from ..guard import after_closure
from ..stacks import Stack, stacks_of
from ..tensors import gradient_of, is_shown, row_dots, to_vector, whole
from .base import Best, Rule, Settings

_Gradients = tuple[list[tuple[list[int], Tensor] | None], list[tuple[int, Tensor, Tensor | None]]]
"""By stack, which parameters have a gradient, and these; of DoRA: adapter, norm, slope."""


class UpdateCredit(Rule):
    """Copies the adapters' parameters and gradients before each optimizer step, and computes the credit after it."""

    name = "credit"
    score_label = "update credit"
    least_steps = 1
    shares_parameters = True  # credit adds up over parameters

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        super().__init__(adapters, optimizer, settings)
        self._stacks: list[Stack] = []  # found at the first step of a round: between rounds, adapters grow
        self._width = 0  # parameters of an adapter, at most
        self._before: list[Tensor] | None = None
        self._variants: list[tuple[int, LoraAdapter]] = []
        self._norms: list[tuple[int, Tensor, Tensor]] = []  # of DoRA: adapter, norm, magnitude
        self._seen: _Gradients | None = None
        self.hooks.append(optimizer.register_step_pre_hook(self._remember))

    @torch.no_grad()
    def _remember(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if not self._stacks:
            self._stacks = stacks_of(self._adapters)
            self._width = max(len(adapter.parameters) for adapter in self._adapters)
            self._variants = [(index, adapter) for index, adapter in enumerate(self._adapters) if adapter.variant]
        self._before = [stack.copy(stack.parameters) for stack in self._stacks]
        magnitudes = [(i, adapter, adapter.magnitude) for i, adapter in self._variants]
        self._norms = [(i, a.weight_norm(), m.detach().clone()) for i, a, m in magnitudes if m is not None]
        # A fused optimizer takes the loss scale out of the gradients itself, and DeepSpeed clips them.
        if getattr(optimizer, "grad_scale", None) is not None or is_shown(self._stacks[0].parameters[0]):
            return None
        return after_closure(args, kwargs, self._see)

    def _see(self) -> None:
        """Copy the gradients: some optimizers overwrite them in their step (schedule-free, SGD with Nesterov)."""
        self._seen = self._gradients()

    def _gradients(self) -> _Gradients:
        slopes = [(i, norm, _slope(self._adapters[i], norm, magnitude)) for i, norm, magnitude in self._norms]
        return [stack.gradients() for stack in self._stacks], slopes

    @torch.no_grad()
    def take(self, grad_scale: float) -> Tensor | None:
        """Credit of the latest optimizer step, shape `(n,)`; None if there was no step since the last call."""
        before, self._before = self._before, None
        if before is None:
            return None
        (gradients, slopes), self._seen = self._seen or self._gradients(), None
        of_stacks = zip(self._stacks, before, gradients, strict=True)
        found = [_gain(stack, old, *gradient) for stack, old, gradient in of_stacks if gradient]
        # FSDP1 may have left this process no part of any adapter.
        if not found and any(stack.entries for stack in self._stacks):
            raise TrainingError(
                "no adapter has a gradient: call step() after backward() and optimizer.step(), and before "
                "zero_grad(); set use_reentrant=False if you use gradient checkpointing."
            )
        # What the changes of DoRA's weight norms, from `norm` to the present one, did to the loss.
        norms = [
            (i, whole((slope * (self._adapters[i].weight_norm() - norm).float()).sum()))
            for i, norm, slope in slopes
            if slope is not None
        ]
        return self._add_up(found, norms).double()

    def _add_up(self, found: list["_Gain"], norms: list[tuple[int, Tensor]]) -> Tensor:
        """The adapters' credits, after one transfer from each device. Float32, shape `(n,)`."""
        credit = torch.zeros(len(self._adapters), dtype=torch.float32, device="cpu")
        if not found:
            return credit
        sizes = [len(gain.values) for gain in found]
        values = to_vector([*(gain.values for gain in found), *(one.view(1) for _, one in norms)]).float()
        terms = credit.new_zeros(len(credit), self._width)
        for gain, value in zip(found, values[: sum(sizes)].split(sizes), strict=True):
            stack, rows = gain.stack, gain.rows
            terms[stack.owners[rows], stack.places[rows]] = value * stack.parts[rows]
        for term in terms.unbind(1):  # in the order of an adapter's parameters, on every device
            credit -= term
        for (index, _), value in zip(norms, values[sum(sizes) :], strict=True):
            credit[index] += value
        return credit

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """Add up the credit over the steps."""
        self.score = self.score + evidence

    def keep(self, mask: Tensor) -> None:
        self._stacks, self._variants, self._norms = [], [], []  # or what leaves the model would stay in memory
        super().keep(mask)

    def close(self) -> None:
        super().close()
        self._before, self._stacks, self._variants, self._norms, self._seen = None, [], [], [], None


@dataclass(frozen=True)
class _Gain:
    """What the updates of a stack changed in the loss, to first order.

    Attributes:
        rows: Which of the stack's parameters have a gradient.
        values: `<gradient, update>` of each of these, on their device. Float32.
    """

    stack: Stack
    rows: list[int] | slice
    values: Tensor


def _gain(stack: Stack, before: Tensor, rows: list[int], gradients: Tensor) -> _Gain:
    """The gain of a stack, of which these rows have a gradient."""
    complete = len(rows) == len(stack.parameters)
    if not complete:
        values = before.unbind()  # for an index that is sent to an accelerator, the host would wait
        before = torch.stack([values[row] for row in rows])
    moved = stack.copy([stack.parameters[row] for row in rows]).float()
    moved -= before.float()
    return _Gain(stack, slice(None) if complete else rows, row_dots(gradients.float(), moved))


def _slope(adapter: LoraAdapter, norm: Tensor, magnitude: Tensor) -> Tensor | None:
    """The gradient with respect to DoRA's weight norm, with the opposite sign; None if the magnitude has none."""
    now = adapter.magnitude
    gradient = None if now is None or not now.requires_grad else gradient_of(now)
    return None if gradient is None else gradient.float() * magnitude.float() / norm.float()
