"""Tensors on several devices, and tensors of which this process has a part."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from .errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Those of weights, by the names that settings and files have for them."""

SAMPLE = 64
"""About so many values of each parameter are compared. A copy of all would double the memory."""

# Parameters that FSDP1 has flattened do not say it themselves: entries as a whole, and number of parts.
_WHOLE = WeakIdKeyDictionary()
# Parameters whose values and gradients an engine keeps for itself (DeepSpeed): copies of both, whole.
_SHOWN = WeakIdKeyDictionary()  # `.data` is empty when it is, and much quicker to ask


def dtype_name(dtype: torch.dtype) -> str:
    """Such as `"float32"`."""
    return str(dtype).removeprefix("torch.")


def note_whole_(parameter: Tensor, entries: int, parts: int) -> None:
    """Note that this process holds one of `parts` parts of a parameter, which has so many entries as a whole."""
    _WHOLE[parameter] = (entries, parts)


def forget_whole_(parameter: Tensor) -> None:
    """Undo `note_whole_`, once the parameter is whole again."""
    _WHOLE.pop(parameter, None)


def show_(parameter: Tensor, value: Tensor, gradient: Tensor | None) -> None:
    """Let `local` and `gradient_of` give these copies, and not what the parameter holds."""
    _SHOWN[parameter] = (value, gradient)


def hide_(parameter: Tensor) -> None:
    """Undo `show_`."""
    _SHOWN.pop(parameter, None)


def is_shown(parameter: Tensor) -> bool:
    """Whether an engine shows copies of this parameter."""
    return bool(_SHOWN.data) and parameter in _SHOWN


def gradient_of(parameter: Tensor) -> Tensor | None:
    """The gradient of a parameter, or the copy that its engine shows of it; None if it has none."""
    return _SHOWN[parameter][1] if is_shown(parameter) else parameter.grad


def to_vector(tensors: list[Tensor]) -> Tensor:
    """Join scalars, or vectors, that may lie on several devices into one float64 CPU tensor: one transfer a device."""
    join = torch.stack if tensors[0].dim() == 0 else torch.cat
    places: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(place)
    pieces = list(tensors)
    for here in places.values():
        joined = join([tensors[place] for place in here]).detach().float().cpu().double()
        if len(places) == 1:
            return joined
        for place, piece in zip(here, joined.split([tensors[place].numel() for place in here]), strict=True):
            pieces[place] = piece
    return torch.cat(pieces)


def row_dots(first: Tensor, second: Tensor) -> Tensor:
    """The dot product of each row of one matrix with the same row of another, shape `(rows,)`."""
    if first.device.type == "cpu":  # to the last digit what torch.dot gives for the rows alone
        return torch.stack([torch.dot(a, b) for a, b in zip(first.unbind(), second.unbind(), strict=True)])
    return (first * second).sum(1)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor, or the copy that an engine shows; any other tensor as it is."""
    if is_shown(tensor):
        shown: Tensor = _SHOWN[tensor][0]
        return shown
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of mappings, lists and tuples."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)


def leaves_of(value: Any) -> Iterator[Tensor]:
    """The tensors to which the backward pass of a value gives gradients."""
    waiting, seen = [getattr(value, "grad_fn", None)], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if torch.is_tensor(leaf) and leaf.is_leaf:
            yield leaf
        waiting += [inner for inner, _ in node.next_functions]


def whole(tensor: Tensor) -> Tensor:
    """All of a DTensor, which all of its processes ask for together; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def numel(tensor: Tensor) -> int:
    """Entries of the whole tensor, also where FSDP1 has left this process a part of it."""
    entries: int = _WHOLE.get(tensor, (tensor.numel(), 1))[0]
    return entries


def shards(tensor: Tensor) -> int:
    """Into how many parts a DTensor, or a parameter of FSDP1, is cut; 1 for any other tensor."""
    if tensor in _WHOLE:
        parts: int = _WHOLE[tensor][1]
        return parts
    if not hasattr(tensor, "placements"):
        return 1
    sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)  # type: ignore[attr-defined]
    return math.prod(size for size, placement in sizes if placement.is_shard())


@contextlib.contextmanager
def unchanged_weights(model: nn.Module) -> Iterator[None]:
    """Raise a `ModelError` afterwards if parameters have other values: RWKV rescales its weights when it trains.

    Parameters that are empty at one of the two times are not compared: ZeRO 3 empties and refills them.
    """
    before = [(name, p, _sample(p)) for name, p in model.named_parameters() if not p.is_meta]
    yield
    for name, parameter, sample in before:
        now = _sample(parameter)
        if sample.numel() and now.numel() and not torch.equal(now, sample):
            raise ModelError(
                f"the forward pass changed the frozen weight {name!r}, which cannot be put back: load the model "
                "again, and run one batch in training mode before you choose."
            )


def _sample(parameter: Tensor) -> Tensor:
    """The bytes of some of its values, from all parts of it."""
    values = local(parameter.detach()).flatten()
    return values[:: max(1, values.numel() // SAMPLE)].clone().view(torch.uint8)
