"""Tensors on several devices, and tensors of which this process has a part."""

import math

import torch
from torch import Tensor


def to_vector(tensors: list[Tensor]) -> Tensor:
    """Stack scalars that may lie on several devices into one float64 CPU tensor of shape `(n,)`."""
    if len({tensor.device for tensor in tensors}) == 1:  # one transfer instead of n
        return torch.stack([tensor.float() for tensor in tensors]).cpu().double()
    return torch.stack([tensor.detach().cpu().double() for tensor in tensors])


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def shards(tensor: Tensor) -> int:
    """Into how many parts a DTensor is cut; 1 for any other tensor."""
    if not hasattr(tensor, "placements"):
        return 1
    sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)  # type: ignore[attr-defined]
    return math.prod(size for size, placement in sizes if placement.is_shard())
