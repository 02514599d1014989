"""Ranks in proportion to the probe's scores, of all modules: the other way to spend a budget of parameters."""

from collections.abc import Sequence
from typing import NamedTuple

from ..adapters import LoraAdapter
from ..budget import Budget
from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..rules import RULES
from ..tensors import numel
from ..values import check_known

RANKS = ("equal", "proportional")
"""How ranks are given out: one rank for the best modules, or to all modules in proportion to their scores."""

SMALLEST = 1e-9
"""A score below this part of the largest one gets no rank."""


class Start(NamedTuple):
    """An adapter before the selection, and what it would cost at other ranks.

    Attributes:
        name, kind, rank, scaling, size: Of the adapter.
        per_rank: Parameters of A and B at rank 1. Others, such as DoRA's magnitude, do not grow with the rank.
        unit: What the rank must be a multiple of.
        most: Above this rank, `B A` gains nothing.
    """

    name: str
    kind: str
    rank: int
    scaling: float
    size: int
    per_rank: float
    unit: int
    most: int

    @classmethod
    def of(cls, adapter: LoraAdapter) -> "Start":
        """That of an adapter, which may leave the model later."""
        per_rank = sum(numel(factor) for factor in adapter.factors) / adapter.rank
        of_rank = adapter.rank, adapter.scaling, adapter.size, per_rank
        return cls(adapter.name, adapter.kind, *of_rank, adapter.rank_unit, adapter.max_rank)

    def cost(self, rank: int) -> int:
        """Parameters at a rank; none at rank 0, without an adapter."""
        return round(self.size + (rank - self.rank) * self.per_rank) if rank else 0

    def nearest(self, wanted: float) -> int:
        """The possible rank that is nearest to a number."""
        return min(round(wanted / self.unit) * self.unit, self.most)


def check_ranks(ranks: str, config: WeightLoraConfig, group: str, starts: Sequence[Start] = ()) -> None:
    """Raise a `ConfigError` if ranks cannot be given out like this.

    Args:
        ranks: One of `RANKS`.
        config: The settings of the selection.
        group: One of `groups.GROUPS`.
        starts: The adapters, once they are known. One of them has to fit into the budget at its rank.
    """
    check_known("ranks", ranks, RANKS)
    if ranks == "equal":
        return
    wish = f"ranks={ranks!r}"
    if not RULES[config.selection].probes:
        raise ConfigError(
            f"{wish} follows the scores of the probe, and selection={config.selection!r} makes none: set "
            "selection='gradient'."
        )
    if config.keep is not None:
        raise ConfigError(
            f"{wish} gives a rank to every module, and keep={config.keep} is a number of modules: set keep_parameters."
        )
    if group != "none":
        raise ConfigError(f"{wish} compares single modules: leave group={group!r} out.")
    if experts := [start.name for start in starts if start.kind == "parameter"]:
        raise ConfigError(
            f"{wish} needs modules, and {experts[0]!r} is a parameter, not a module: set ranks='equal', or "
            "target_modules to the modules to choose from."
        )
    if not starts:
        return
    sizes, rank = [start.size for start in starts], max(start.rank for start in starts)
    try:
        config.budget_for(sizes)
    except ConfigError as error:
        raise ConfigError(
            f"keep_parameters={config.keep_parameters} of {sum(sizes):,} is less than the smallest adapter has at "
            f"rank {rank} ({min(sizes):,}), with which the probe runs: raise it, or begin with r=1, and lora_alpha "
            "lowered in the same ratio."
        ) from error


def ranks_in_proportion(scores: Sequence[float], starts: Sequence[Start], budget: Budget) -> list[int]:
    """The largest ranks in proportion to scores with which all adapters together fit; 0 where one has no room.

    Args:
        scores: Of each adapter; not negative, one of them positive.
        starts: The adapters.
        budget: Bounds the parameters.

    Raises:
        ConfigError: There is no room for the adapter that gets a rank first, with the largest score.
    """
    most = budget.rounds[-1][1]

    def ranks(factor: float) -> list[int]:
        return [one.nearest(score * factor) for score, one in zip(scores, starts, strict=True)]

    least = SMALLEST * max(scores)
    low, high = 0.0, max((one.most + one.unit) / s for s, one in zip(scores, starts, strict=True) if s > least)

    def fit(found: list[int]) -> bool:
        return sum(one.cost(rank) for one, rank in zip(starts, found, strict=True)) <= most

    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if fit(ranks(middle)) else (low, middle)
    found = ranks(low)
    for place, rank in enumerate(ranks(high)):  # of equal scores, those that fit
        grown = [*found[:place], rank, *found[place + 1 :]]
        found = grown if fit(grown) else found
    if not any(found):
        raise ConfigError(
            f"keep_parameters={most:,} has no room for the module with the largest score at its lowest rank: raise "
            "it, or set ranks='equal'."
        )
    return found
