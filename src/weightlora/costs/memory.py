"""The peak of a training step in bytes: weights, gradients, optimizer state, and what passes or the update take."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate

import torch
from torch import Tensor, nn

from ..adapters import LoraAdapter, base_model_of
from ..errors import ModelError
from ..measure import model_bytes, optimizer_state_bytes, peak_allocated_bytes
from .anchors import between, ends, optimizer_of_copies, subsets
from .model import Costs
from .tracing import Trace, without

CHAIN = 0.9
"""Of the activations of all layers, what a step with the lowest adapter alone keeps at the least in a chain."""


def price_memory(model: nn.Module, adapters: list[LoraAdapter], loss: Callable[[], Tensor], seen: Trace) -> Costs:
    """What each part costs in bytes, with AdamW, where all gradients are there at the peak (gradient accumulation).

    The update of the optimizer takes memory for a moment, too. It is the peak if what trains beside the adapters is
    large, and what the passes keep is small. That of all adapters is counted for every choice, which is too much where
    the adapters themselves are large.

    Args:
        model, adapters, loss: See `measure`.
        seen: What forward passes showed.

    Raises:
        ModelError: The model is no chain of layers.
    """
    device = next(model.parameters()).device
    peaks: dict[int | str | None, float] = {}
    alone = _anchors(seen, profile := list(accumulate(seen.saved)))
    low = alone[-1]

    def accumulate_gradients() -> None:
        loss().backward()

    kinds = _kinds(adapters, seen)
    every = sorted({kind for kind in kinds if kind is not None})
    less = {kind: [a for i, a in enumerate(adapters) if kinds[i] == kind and i != low] for kind in every}
    for name, off in (*subsets(adapters, alone).items(), *less.items()):
        with without(off):
            accumulate_gradients()
            peaks[name] = float(peak_allocated_bytes(accumulate_gradients, device))
        model.zero_grad(set_to_none=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    states, update = _optimizer(trained, device)
    sizes = [sum(p.nbytes for p in a.parameters) + (1 + states) * _trained_bytes(a.parameters) for a in adapters]
    weights = model_bytes(model) + (1 + states) * _trained_bytes(trained) - sum(sizes)  # with gradients and states
    prices = {seen.groups[one]: peaks[one] - seen.own[one] - seen.shared[seen.groups[one]] for one in alone}
    depth = between(profile, prices, seen.reached)
    if prices[seen.groups[low]] < CHAIN * sum(seen.saved):
        raise ModelError(
            f"{type(base_model_of(model)).__name__} has parts that do not run one after the other: with its first "
            "adapter alone, it keeps the activations of one part. So the memory of a choice cannot be predicted: set "
            "keep or keep_parameters instead."
        )
    depth, peak = [max(price, update) for price in depth], max(peaks[None], update)
    rest = peak - depth[-1] - sum(seen.shared) - sum(seen.own)  # what comes and goes
    places = [profile[group] for group in seen.groups]
    passing, blocks = _passing(kinds, places, rest, {kind: peaks[None] - peaks[kind] for kind in every})
    each = 0.0 if passing else rest / len(adapters)
    return Costs(
        resource="memory",
        groups=seen.groups,
        depth=[weights + price for price in depth],
        shared=seen.shared,
        own=[max(0.0, price + size + each) for price, size in zip(seen.own, sizes, strict=True)],
        whole=weights + sum(sizes) + peak,
        passing=passing,
        blocks=blocks,
    )


def _kinds(adapters: list[LoraAdapter], seen: Trace) -> list[str | None]:
    """For each adapter in a block that recomputes, what it has in common with those in its place in other blocks.

    Autograd saves nothing for such an adapter that can be seen.
    """
    found: list[str | None] = []
    for adapter, given, own in zip(adapters, seen.inputs, seen.own, strict=True):
        shapes = [tuple(parameter.shape) for parameter in adapter.parameters]
        found.append(None if given is None or own else f"{re.sub('[0-9]+', '', adapter.name)} {shapes}")
    return found


def _passing(
    kinds: list[str | None], places: list[float], rest: float, less: Mapping[str, float]
) -> tuple[list[float], list[int]]:
    """What each adapter keeps while its block recomputes, and the number of this block.

    Args:
        kinds: Of the adapters, from `_kinds`.
        places: For each adapter, the bytes that are saved down to its group. What is saved between blocks tells these.
        rest: What those of the fullest block keep together, to which all are scaled.
        less: Kind -> by how much the peak is lower without its adapters.
    """
    numbers = {place: number for number, place in enumerate(sorted({*places}))}
    blocks = [numbers[place] for place in places]
    counts = Counter(zip(kinds, blocks, strict=True))
    most = {kind: max(count for (one, _), count in counts.items() if one == kind) for kind in less}
    sizes = [0.0 if kind is None else max(0.0, less[kind]) / most[kind] for kind in kinds]
    fullest = max(sum(size for size, one in zip(sizes, blocks, strict=True) if one == block) for block in {*blocks})
    if not fullest or rest <= 0:
        return [], []
    return [rest * size / fullest for size in sizes], blocks


def _anchors(seen: Trace, profile: list[float]) -> list[int]:
    """Indices of the adapters whose steps alone are measured, from the highest down to the lowest.

    Activations of a block that recomputes them are not seen, but are a part of the peak. Those of the last block are
    more, the lower in this block the lowest adapter is, and all of them if it is in another block.
    """
    low, high = ends(seen)
    ran = seen.ran
    places = {index: profile[seen.groups[index]] for index in ran}
    found = {_lowest(seen, [index for index in ran if places[index] == places[high]]), low}
    if recompute := [index for index in ran if not seen.own[index]]:
        block = min(places[index] for index in recompute)
        found.add(_lowest(seen, [index for index in ran if places[index] == block]))
        if below := [index for index in ran if places[index] > block]:
            found.add(min(below, key=lambda index: seen.groups[index]))
    return sorted(found, key=lambda index: seen.groups[index])


def _lowest(seen: Trace, indices: list[int]) -> int:
    return max(indices, key=lambda index: seen.groups[index])


def _trained_bytes(parameters: list[nn.Parameter]) -> int:
    """Without those that are frozen, such as the A of LoRA-FA."""
    return sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)


def _optimizer(trained: list[nn.Parameter], device: torch.device) -> tuple[float, float]:
    """Bytes of AdamW's state for each byte of the parameters, and bytes that its step takes and gives back."""
    optimizer = optimizer_of_copies(trained)
    with torch.device("cpu"):  # where it counts steps, whatever device the user has set for new tensors
        optimizer.step()
        states = optimizer_state_bytes(optimizer) / _trained_bytes(trained)
        return states, float(peak_allocated_bytes(optimizer.step, device))
