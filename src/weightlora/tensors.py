"""Tensors on several devices, and tensors of which this process has a part."""

import math

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

# Parameters that FSDP1 has flattened do not say it themselves: entries as a whole, and number of parts.
_WHOLE = WeakIdKeyDictionary()


def note_whole_(parameter: Tensor, entries: int, parts: int) -> None:
    """Note that this process holds one of `parts` parts of a parameter, which has so many entries as a whole."""
    _WHOLE[parameter] = (entries, parts)


def forget_whole_(parameter: Tensor) -> None:
    """Undo `note_whole_`, once the parameter is whole again."""
    _WHOLE.pop(parameter, None)


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
    return _WHOLE.get(tensor, (tensor.numel(), 1))[0]


def shards(tensor: Tensor) -> int:
    """Into how many parts a DTensor, or a parameter of FSDP1, is cut; 1 for any other tensor."""
    if tensor in _WHOLE:
        return _WHOLE[tensor][1]
    if not hasattr(tensor, "placements"):
        return 1
    sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)  # type: ignore[attr-defined]
    return math.prod(size for size, placement in sizes if placement.is_shard())
