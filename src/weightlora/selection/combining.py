"""Choose again from finished selections: by groups, over several seeds, and with ranks in proportion."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..rules import RULES
from ..values import check_int
from .groups import check_groups, choose, complete, labels_for, mean_ranks, of_groups
from .proportional import Start, check_ranks, ranks_in_proportion
from .record import Selection


class Wishes(NamedTuple):
    """How to choose, beside the budget and the rule.

    Attributes:
        group: Which modules are chosen together; one of `groups.GROUPS`.
        seeds: How many times the selection runs.
        ranks: How ranks are given out; one of `proportional.RANKS`.
    """

    group: str = "none"
    seeds: int = 1
    ranks: str = "equal"

    @property
    def usual(self) -> bool:
        """Whether one run is the answer as it is."""
        return self == Wishes()

    def __str__(self) -> str:
        """The first one that is not usual."""
        if self.group != "none":
            return f"group={self.group!r}"
        return f"seeds={self.seeds}" if self.seeds > 1 else f"ranks={self.ranks!r}"


def check_wishes(config: WeightLoraConfig, wishes: Wishes, starts: Sequence[Start] = ()) -> None:
    """Raise a `ConfigError` if modules cannot be chosen like this.

    Args:
        config: The settings of the selection.
        wishes: How to choose.
        starts: The adapters, once they are known.
    """
    group, seeds, ranks = wishes
    check_int("seeds", seeds, 1)
    labels = labels_for([start.name for start in starts], group)
    check_ranks(ranks, config, group, starts)
    if wishes.usual:
        return
    for name, usual in (("rounds", 1), ("expand", "none")):
        if (value := getattr(config, name)) != usual:
            raise ConfigError(
                f"{wishes} chooses from the scores at the end, and {name}={value!r} changes adapters before: leave "
                f"{name} at {usual!r}."
            )
    if config.resource is not None:
        raise ConfigError(
            f"{wishes} is decided by numbers of modules and parameters: set keep_parameters instead of "
            f"keep_{config.resource}."
        )
    if group == "layer" and not RULES[config.selection].compares_blocks:
        raise ConfigError(
            f"group='layer' compares layers, and selection={config.selection!r} scores an adapter relative to its "
            "layer: set selection='credit'."
        )
    if group != "none" and starts:
        sizes = [start.size for start in starts]
        check_groups(labels, sizes, config.budget_for(sizes), group)


def combine(runs: Sequence[Selection], starts: Sequence[Start], config: WeightLoraConfig, wishes: Wishes) -> Selection:
    """One selection of several: by groups, by the mean place over the seeds, or with ranks in proportion to scores.

    Args:
        runs: Finished selections of the same modules, one per seed.
        starts: The adapters before them.
        config: The settings that they share. The budget is read from them.
        wishes: How to choose. The score of a group is the sum of those of its members.

    Returns:
        The only run as it is, without a wish. Otherwise a selection whose scores are means over the seeds.
    """
    group, _, ranks = wishes
    if wishes.usual:
        return runs[0]
    names, sizes = [start.name for start in starts], [start.size for start in starts]
    scores = [torch.tensor([float(run.scores[name] or 0) for name in names], dtype=torch.float64) for run in runs]
    if config.rank_by == "magnitude":
        scores = [one.abs() for one in scores]
    budget, labels = config.budget_for(sizes), labels_for(names, group)

    def best(labels: Sequence[str], scores: Sequence[Tensor]) -> Tensor:
        sums = [of_groups(one, labels) for one in scores]
        return choose(sums[0] if len(sums) == 1 else -mean_ranks(sums), sizes, labels, budget)

    def new_ranks(scores: Sequence[Tensor]) -> Tensor:
        if ranks == "equal":
            return torch.where(best(labels, scores), torch.tensor([start.rank for start in starts]), 0)
        mean = torch.stack(list(scores)).mean(0)
        return torch.tensor(ranks_in_proportion(mean.tolist(), starts, budget))

    found = new_ranks(scores)
    made = _rewritten(runs[0], found.tolist(), torch.stack(scores).mean(0), starts)
    if ranks != "equal":
        made = replace(made, rank_rule=ranks)
    if len(runs) > 1:
        counts = torch.stack([new_ranks([one]) > 0 for one in scores]).sum(0).tolist()
        made = replace(made, seeds=dict(zip(names, counts, strict=True)), history=())
    if group == "none":
        return made
    alone = best(names, scores)
    return replace(made, grouping=_cost(group, found > 0, alone, complete(alone, labels), sizes))


def _cost(group: str, mask: Tensor, alone: Tensor, completed: Tensor, sizes: Sequence[int]) -> dict[str, Any]:
    size = torch.tensor(sizes)

    def figures(of: Tensor) -> dict[str, int]:
        return {"modules": int(of.sum()), "parameters": int(size[of].sum())}

    return {"group": group, **figures(mask), "without_groups": figures(alone), "completed": figures(completed)}


def _rewritten(run: Selection, ranks: Sequence[int], scores: Tensor, starts: Sequence[Start]) -> Selection:
    """A selection with other ranks (0 where a module is dropped), at the scalings of the start."""
    modules = tuple(
        replace(
            module,
            kept=rank > 0,
            score=score,
            omega=float(rank > 0),
            rank=rank or None,
            scaling=start.scaling if rank else None,
        )
        for module, start, rank, score in zip(run.modules, starts, ranks, scores.tolist(), strict=True)
    )
    kept = {module.name: module.rank for module in modules if module.rank is not None}
    history = tuple(
        {**entry, "kept": list(kept), "ranks": kept} if "kept" in entry else entry for entry in run.history
    )
    after = sum(start.cost(rank) for start, rank in zip(starts, ranks, strict=True))
    parameters = {**run.trainable_parameters, "after": after}
    return replace(run, modules=modules, history=history, trainable_parameters=parameters)
