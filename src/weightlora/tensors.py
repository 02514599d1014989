"""Tensors on several devices, and tensors of which this process has a part."""

import math

import torch
from torch import Tensor

# On a parameter that FSDP1 has flattened, which does not tell: its entries as a whole, and the number of its parts.
WHOLE = "_weightlora_whole"


def to_vector(tensors: list[Tensor]) -> Tensor:
    """Stack scalars that may lie on several devices into one float64 CPU tensor of shape `(n,)`."""
    if len({tensor.device for tensor in tensors}) == 1:  # one transfer instead of n
        return torch.stack([tensor.float() for tensor in tensors]).cpu().double()
    return torch.stack([tensor.detach().cpu().double() for tensor in tensors])


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def numel(tensor: Tensor) -> int:
    """Entries of the whole tensor, also where FSDP1 has left this process a part of it."""
    return getattr(tensor, WHOLE, (tensor.numel(), 1))[0]


def shards(tensor: Tensor) -> int:
    """Into how many parts a DTensor, or a parameter of FSDP1, is cut; 1 for any other tensor."""
    if hasattr(tensor, WHOLE):
        return getattr(tensor, WHOLE)[1]
    if not hasattr(tensor, "placements"):
        return 1
    sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)  # type: ignore[attr-defined]
    return math.prod(size for size, placement in sizes if placement.is_shard())
