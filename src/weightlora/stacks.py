"""Parameters of one shape as one tensor, so that the operations of a step do not grow in number with the adapters."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import LoraAdapter
from .tensors import gradient_of, local, shards


@dataclass(frozen=True)
class Stack:
    """Parameters of one shape, dtype and device.

    Attributes:
        parameters: The m parameters.
        entries: Of each, on this process.
        owners: The index of each one's adapter, shape `(m,)`.
        places: Which of its adapter's parameters each one is, shape `(m,)`.
        parts: Into how many parts each one is cut (FSDP), shape `(m,)`. A sum over this process's part times the
            number of parts has the sum over the whole as its mean over the processes.
    """

    parameters: list[nn.Parameter]
    entries: int
    owners: Tensor
    places: Tensor
    parts: Tensor

    def copy(self, tensors: list[Any]) -> Tensor:
        """Copy such tensors into the rows of one matrix, shape `(len(tensors), entries)`."""
        return torch.stack([local(tensor) for tensor in tensors]).reshape(len(tensors), self.entries)

    def gradients(self) -> tuple[list[int], Tensor] | None:
        """Which parameters have a gradient, and copies of these; None if none has one."""
        found = {row: gradient_of(p) if p.requires_grad else None for row, p in enumerate(self.parameters)}
        rows = [row for row, gradient in found.items() if gradient is not None]
        return (rows, self.copy([found[row] for row in rows])) if rows else None


def stacks_of(adapters: list[LoraAdapter]) -> list[Stack]:
    """The parameters of adapters, each in one stack."""
    alike: defaultdict[Any, list[tuple[nn.Parameter, int, int]]] = defaultdict(list)
    for owner, adapter in enumerate(adapters):
        for place, parameter in enumerate(adapter.parameters):
            own = local(parameter)
            alike[own.shape, own.dtype, own.device].append((parameter, owner, place))
    stacks = []
    for members in alike.values():
        parameters, owners, places = map(list, zip(*members, strict=True))
        parts = torch.tensor([shards(parameter) for parameter in parameters], dtype=torch.float32, device="cpu")
        where = torch.tensor(owners, device="cpu"), torch.tensor(places, device="cpu")
        stacks.append(Stack(parameters, local(parameters[0]).numel(), *where, parts))
    return stacks
