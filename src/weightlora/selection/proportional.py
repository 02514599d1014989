"""Ranks in proportion to the probe's scores, of all modules: the other way to spend a budget of parameters."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..budget import Budget
from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..rules import RULES

__all__ = ["RANKS", "check_ranks", "ranks_in_proportion", "ranks_within"]

RANKS = ("equal", "proportional")
"""How ranks are given out: one rank for the best modules, or to all modules in proportion to their scores."""


def check_ranks(ranks: str, config: WeightLoraConfig, group: str, kinds: Mapping[str, str]) -> None:
    """Raise a `ConfigError` if ranks cannot be given out like this.

    Args:
        ranks: One of `RANKS`.
        config: The settings of the selection.
        group: One of `groups.GROUPS`.
        kinds: Name of each adapter -> `"module"` or `"parameter"`, once they are known.
    """
    if ranks not in RANKS:
        raise ConfigError(f"ranks={ranks!r} is not known: choose one of {', '.join(RANKS)}.")
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
    if experts := [name for name, kind in kinds.items() if kind == "parameter"]:
        raise ConfigError(
            f"{wish} needs modules, and {experts[0]!r} is a parameter (target_parameters): set ranks='equal'."
        )


def ranks_in_proportion(
    scores: Sequence[float], ranks: Sequence[int], sizes: Sequence[int], budget: Budget
) -> list[int]:
    """The ranks of all modules for a budget of parameters.

    Args:
        scores: Of each adapter, not negative.
        ranks, sizes: Rank and parameters of each adapter at the start.
        budget: Bounds the parameters.

    Returns:
        New ranks; 0 where an adapter has no room.

    Raises:
        ConfigError: There is no room for one adapter of rank 1.
    """
    per_rank = torch.tensor([size / rank for size, rank in zip(sizes, ranks, strict=True)], dtype=torch.float64)
    most = budget.rounds[-1][1]
    found = ranks_within(torch.tensor(scores, dtype=torch.float64), per_rank, most)
    if not any(found):
        raise ConfigError(f"keep_parameters={most:,} has no room for one module at rank 1: raise it.")
    return found


def ranks_within(scores: Tensor, per_rank: Tensor, most: int) -> list[int]:
    """The largest ranks in proportion to scores with which all adapters together fit; 0 where one has no room.

    Args:
        scores: Shape `(n,)`, not negative, one of them positive.
        per_rank: Parameters of each adapter at rank 1, shape `(n,)`.
        most: The most parameters of all.
    """
    # Rounding takes half a rank from each adapter at most, so nothing fits at `high`.
    low, high = 0.0, (most + float(per_rank.sum())) / float((scores * per_rank).sum())
    for _ in range(100):
        middle = (low + high) / 2
        if int(((scores * middle).round() * per_rank).sum()) <= most:
            low = middle
        else:
            high = middle
    return [int(rank) for rank in (scores * low).round().tolist()]
