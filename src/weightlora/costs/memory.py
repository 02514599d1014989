"""The peak of a training step in bytes: weights, optimizer state, and what forward and backward take."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ..adapters import LoraAdapter, base_model_of
from ..errors import ModelError
from ..measure import model_bytes, optimizer_state_bytes, peak_allocated_bytes
from .anchors import between, ends, subsets, take_step
from .model import Costs
from .tracing import Trace, without

__all__ = ["price_memory"]

CHAIN = 0.9
"""Of the activations of all layers, what a step with the lowest adapter alone keeps at the least in a chain."""


def price_memory(model: nn.Module, adapters: list[LoraAdapter], loss: Callable[[], Tensor], seen: Trace) -> Costs:
    """What each part costs in bytes, with the state of AdamW.

    Args:
        model, adapters, loss: See `measure`.
        seen: One forward pass.

    Raises:
        ModelError: The model is no chain of layers.
    """
    device, peaks = next(model.parameters()).device, {}
    for name, off in subsets(adapters, seen).items():
        with without(off):
            take_step(model, loss)
            peaks[name] = float(peak_allocated_bytes(partial(take_step, model, loss), device))
    sizes = [float(sum(parameter.nbytes for parameter in adapter.parameters)) for adapter in adapters]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    states = _state_per_byte(trained[0].dtype)
    head = sum(parameter.nbytes for parameter in trained) - sum(sizes)
    weights = model_bytes(model) - sum(sizes) + head * states
    low, high = ends(seen)
    lowest, highest = seen.groups[low], seen.groups[high]
    bottom = peaks["lowest"] - seen.own[low] - seen.shared[lowest]
    top = peaks["highest"] - seen.own[high] - seen.shared[highest]
    depth = between(list(accumulate(seen.saved)), highest, lowest, top, bottom)
    known = depth[-1] + sum(seen.shared) + sum(seen.own)
    if bottom < CHAIN * sum(seen.saved):
        raise ModelError(
            f"{type(base_model_of(model)).__name__} has parts that do not run one after the other: with its first "
            "adapter alone, it keeps the activations of one part. So the memory of a choice cannot be predicted: set "
            "keep or keep_parameters instead."
        )
    rest = (peaks["all"] - known) / len(adapters)  # gradients that are there at the peak
    return Costs(
        resource="memory",
        groups=seen.groups,
        depth=[weights + price for price in depth],
        shared=seen.shared,
        own=[max(0.0, own + size * (1 + states) + rest) for own, size in zip(seen.own, sizes, strict=True)],
        whole=weights + sum(sizes) * (1 + states) + peaks["all"],
    )


def _state_per_byte(dtype: torch.dtype) -> float:
    """Bytes of AdamW's state for each byte of a parameter."""
    sample = nn.Parameter(torch.zeros(2**16, dtype=dtype))  # so large that the counter of steps does not matter
    sample.grad = torch.zeros_like(sample)
    optimizer = AdamW([sample])
    optimizer.step()
    return optimizer_state_bytes(optimizer) / sample.nbytes
