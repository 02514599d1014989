"""Steps with all adapters, and with one alone, such as the lowest or the highest: what all prices are scaled to."""

from collections.abc import Iterable, Mapping
from itertools import accumulate

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from ..adapters import LoraAdapter
from ..errors import TrainingError
from .tracing import Trace


def ends(seen: Trace) -> tuple[int, int]:
    """Indices of the lowest and of the highest adapter whose layers ran.

    Raises:
        TrainingError: None ran.
    """
    if not (ran := seen.ran):
        raise TrainingError(
            "no module with an adapter runs in the batch that is measured: adapt modules that the loss depends on."
        )
    return max(ran, key=lambda index: seen.groups[index]), min(ran, key=lambda index: seen.groups[index])


def subsets(adapters: list[LoraAdapter], alone: Iterable[int]) -> dict[int | None, list[LoraAdapter]]:
    """Which adapters are switched off where one is on alone, by its index; None: all are on, none is off."""
    return {None: [], **{one: [a for i, a in enumerate(adapters) if i != one] for one in alone}}


def between(profile: list[float], measured: Mapping[int, float], reached: int = -1) -> list[float]:
    """Prices of depth for each group.

    They do not decrease from one group to the next lower one. Down to the group that backward reaches without any
    adapter (`Trace.reached`), they are equal.

    Args:
        profile: For each group, what gives prices their shape.
        measured: Group -> its price. Between two of these groups, prices go with the profile.
        reached: See above; -1 for none.
    """
    if reached >= 0:
        profile = [max(price, profile[reached]) for price in profile]
    groups = sorted(measured)
    if profile[groups[-1]] <= profile[groups[0]]:  # too short to be measured
        profile = [float(group) for group in range(len(profile))]
    prices = dict(
        zip((profile[group] for group in groups), accumulate(map(measured.__getitem__, groups), max), strict=True)
    )
    return list(accumulate(np.interp(profile, [*prices], [*prices.values()]).tolist(), max))


def optimizer_of_copies(parameters: Iterable[nn.Parameter]) -> AdamW:
    """AdamW with copies of these parameters, which have gradients: its step is measured without moving a weight."""
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    return AdamW(copies)
