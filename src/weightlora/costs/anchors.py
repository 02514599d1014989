"""Steps with all adapters, with the lowest alone, and with the highest alone: what all prices are scaled to."""

from collections.abc import Iterable
from itertools import accumulate

import torch
from torch import nn
from torch.optim import AdamW

from ..adapters import LoraAdapter
from ..errors import TrainingError
from .tracing import Trace

__all__ = ["between", "ends", "optimizer_of_copies", "subsets"]


def ends(seen: Trace) -> tuple[int, int]:
    """Indices of the lowest and of the highest adapter whose layers ran.

    Raises:
        TrainingError: None ran.
    """
    ran = [index for index, given in enumerate(seen.inputs) if given is not None]
    if not ran:
        raise TrainingError(
            "no module with an adapter runs in the batch that is measured: adapt modules that the loss depends on."
        )
    return max(ran, key=lambda index: seen.groups[index]), min(ran, key=lambda index: seen.groups[index])


def subsets(adapters: list[LoraAdapter], low: int, high: int) -> dict[str, list[LoraAdapter]]:
    """Which adapters are switched off where all adapters, the lowest alone or the highest alone are on."""
    alone = {
        name: [a for i, a in enumerate(adapters) if i != one] for name, one in (("lowest", low), ("highest", high))
    }
    return {"all": [], **alone}


def between(profile: list[float], high: int, low: int, top: float, bottom: float, reached: int = -1) -> list[float]:
    """Prices of depth for each group: `top` at group `high`, `bottom` at `low`, shaped like the profile between them.

    They do not decrease from one group to the next lower one. Down to the group that backward reaches without any
    adapter (`Trace.reached`), they are equal.
    """
    if reached >= 0:
        profile = [max(price, profile[reached]) for price in profile]
    span = profile[low] - profile[high]
    if span <= 0:  # too short to be measured
        profile, span = [float(group) for group in range(len(profile))], float(max(1, low - high))
    parts = [min(1.0, max(0.0, (price - profile[high]) / span)) for price in profile]
    return list(accumulate((top + part * max(0.0, bottom - top) for part in parts), max))


def optimizer_of_copies(parameters: Iterable[nn.Parameter]) -> AdamW:
    """AdamW with copies of these parameters, which have gradients: its step is measured without moving a weight."""
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    return AdamW(copies)
