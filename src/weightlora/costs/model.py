"""The cost of a training step as a function of the adapters that are on the model. Pure: numbers in, numbers out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Resource = Literal["step_time", "memory"]


@dataclass(frozen=True)
class Costs:
    """What a training step costs with any set of adapters.

    The backward pass ends at the lowest adapter, so the first term is the depth. Adapters on one input (query, key and
    value) share the stored input. The rest is the cost of each adapter alone:

        cost(S) = depth[lowest group of S] + sum of shared[g] over the groups of S + sum of own[i] over S
                  + the largest sum of passing[i] over those of S in one block

    The last term is there where activations are recomputed: what adapters keep is there for one block at a time.

    Attributes:
        resource: `"step_time"`, in seconds, or `"memory"`, in bytes.
        groups: For each adapter, the number of its group: the adapters on one input. The group that the forward pass
            runs last, from which backward is shortest, is 0.
        depth: For each group, the cost of a step without adapters whose backward pass ends at this group. It does not
            decrease.
        shared: For each group, what its adapters cost together, however many they are.
        own: For each adapter, what it costs alone.
        whole: What a step with all adapters cost when it was measured.
        passing: For each adapter, what it keeps while its block recomputes; empty without recomputation.
        blocks: For each adapter, the number of this block; empty, too.

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
    passing: list[float] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def predict(self, mask: Sequence[bool] | Tensor) -> float:
        """The cost in seconds or bytes of a step with the adapters in a mask of shape `(n,)`, of which one is true."""
        chosen = [i for i, kept in enumerate(mask) if kept]
        groups = {self.groups[i] for i in chosen}
        # rounded once: sum() gives other last digits since Python 3.12, and a budget that just fits would not
        parts = [self.depth[max(groups)], *(self.shared[g] for g in groups), *(self.own[i] for i in chosen)]
        return math.fsum([*parts, *self.by_block(chosen)[:1]])

    def by_block(self, chosen: Iterable[int]) -> list[float]:
        """What each block keeps for these adapters while it recomputes, the most first; empty where none does."""
        if not self.passing:
            return []
        kept: dict[int, list[float]] = {}
        for index in chosen:
            kept.setdefault(self.blocks[index], []).append(self.passing[index])
        return sorted(map(math.fsum, kept.values()), reverse=True)

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
