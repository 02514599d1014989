"""The cost of a training step as a function of the adapters that are on the model. Pure: numbers in, numbers out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Costs", "Resource", "amount_in_words"]

Resource = Literal["step_time", "memory"]


@dataclass(frozen=True)
class Costs:
    """What a training step costs with any set of adapters.

    The backward pass ends at the lowest adapter, so the first term is the depth. Adapters on one input (query, key and
    value) share the stored input. The rest is the cost of each adapter alone:

        cost(S) = depth[lowest group of S] + sum of shared[g] over the groups of S + sum of own[i] over S

    Attributes:
        resource: `"step_time"`, in seconds, or `"memory"`, in bytes.
        groups: For each adapter, the number of its group: the adapters on one input. The group that the forward pass
            runs last, from which backward is shortest, is 0.
        depth: For each group, the cost of a step without adapters whose backward pass ends at this group. It does not
            decrease.
        shared: For each group, what its adapters cost together, however many they are.
        own: For each adapter, what it costs alone.
        whole: What a step with all adapters cost when it was measured.

    Example:
        ```python
        selector = WeightLora(model, optimizer, WeightLoraConfig(keep_memory="1GiB", select_steps=30))
        selector.probe(loader)
        costs = selector.limit.costs
        print(costs.shown(costs.predict([True] * len(costs.own))))  # of a step with all adapters
        ```
    """

    resource: Resource
    groups: list[int]
    depth: list[float]
    shared: list[float]
    own: list[float]
    whole: float

    def predict(self, mask: Sequence[bool] | Tensor) -> float:
        """The cost in seconds or bytes of a step with the adapters in a mask of shape `(n,)`, of which one is true."""
        chosen = [i for i, kept in enumerate(mask) if kept]
        groups = {self.groups[i] for i in chosen}
        # rounded once: sum() gives other last digits since Python 3.12, and a budget that just fits would not
        return math.fsum([self.depth[max(groups)], *(self.shared[g] for g in groups), *(self.own[i] for i in chosen)])

    def shown(self, cost: float) -> str:
        """A cost in words: GiB, or the share of the step time of LoRA on all modules."""
        return amount_in_words(self.resource, cost, self.whole)


def amount_in_words(resource: str, cost: float, whole: float) -> str:
    """A cost in words: KiB, MiB or GiB; or what part it is of `whole`, the step time of LoRA on all modules.

    It is rounded up, so the amount that is shown is enough as a budget.
    """
    if resource == "memory":
        if cost < 2**23:
            return f"{_up(cost / 2**10):.0f} KiB"
        return f"{_up(cost / 2**30, 100):.2f} GiB" if cost >= 2**29 else f"{_up(cost / 2**20):.0f} MiB"
    return f"{_up(cost / whole, 100):.2f} of the step time of LoRA on all modules"


def _up(value: float, parts: int = 1) -> float:
    """A value rounded up to parts of one, up to the rounding of floats."""
    return math.ceil(value * parts - 1e-6) / parts
