"""Choose again from finished selections: by groups, and over several seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..adapters import LoraAdapter
from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..rules import RULES
from .groups import check_groups, choose, complete, labels_for, mean_ranks, of_groups
from .record import Selection

__all__ = ["Starts", "check_wishes", "combine", "starts_of"]


@dataclass(frozen=True)
class Starts:
    """The adapters before a selection: name -> rank, scaling and parameters."""

    ranks: Mapping[str, int]
    scalings: Mapping[str, float]
    sizes: Mapping[str, int]


def starts_of(adapters: Iterable[LoraAdapter]) -> Starts:
    """Note the adapters, before some of them leave."""
    found = list(adapters)
    return Starts(
        {adapter.name: adapter.rank for adapter in found},
        {adapter.name: adapter.scaling for adapter in found},
        {adapter.name: adapter.size for adapter in found},
    )


def check_wishes(config: WeightLoraConfig, group: str, seeds: int, starts: Starts | None = None) -> None:
    """Raise a `ConfigError` if modules cannot be chosen by these groups, or over so many seeds.

    Args:
        config: The settings of the selection.
        group: One of `groups.GROUPS`.
        seeds: How many times the selection runs.
        starts: The adapters, once they are known.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds={seeds!r} must be a whole number of at least 1.")
    labels = labels_for([] if starts is None else list(starts.sizes), group)
    if group == "none" and seeds == 1:
        return
    wish = f"group={group!r}" if group != "none" else f"seeds={seeds}"
    for name, usual in (("rounds", 1), ("expand", "none")):
        if (value := getattr(config, name)) != usual:
            raise ConfigError(
                f"{wish} chooses from the scores at the end, and {name}={value!r} changes adapters before: leave "
                f"{name} at {usual!r}."
            )
    if config.resource is not None:
        raise ConfigError(
            f"{wish} is decided by numbers of modules and parameters: leave keep_{config.resource} out, and set keep "
            "or keep_parameters."
        )
    if group == "layer" and not RULES[config.selection].compares_blocks:
        raise ConfigError(
            f"group='layer' compares layers, and selection={config.selection!r} scores an adapter relative to its "
            "layer: set selection='credit'."
        )
    if group != "none" and starts is not None:
        sizes = list(starts.sizes.values())
        check_groups(labels, sizes, config.budget_for(sizes), group)


def combine(runs: Sequence[Selection], starts: Starts, config: WeightLoraConfig, group: str = "none") -> Selection:
    """One selection of several: by groups, and by the mean rank over the seeds.

    Args:
        runs: Finished selections of the same modules, one per seed.
        starts: The adapters before them.
        config: The settings that they share. The budget is read from them.
        group: One of `groups.GROUPS`. The score of a group is the sum of those of its members.

    Returns:
        The only run as it is, without groups. Otherwise a selection whose scores are means over the seeds.
    """
    if len(runs) == 1 and group == "none":
        return runs[0]
    names, sizes = list(starts.sizes), list(starts.sizes.values())
    scores = [torch.tensor([float(run.scores[name] or 0) for name in names], dtype=torch.float64) for run in runs]
    budget, labels = config.budget_for(sizes), labels_for(names, group)

    def best(labels: Sequence[str], scores: Sequence[Tensor]) -> Tensor:
        sums = [of_groups(one, labels) for one in scores]
        return choose(sums[0] if len(sums) == 1 else -mean_ranks(sums), sizes, labels, budget)

    mask = best(labels, scores)
    made = _rewritten(runs[0], mask, torch.stack(scores).mean(0), starts)
    if len(runs) > 1:
        counts = torch.stack([best(labels, [one]) for one in scores]).sum(0).tolist()
        made = replace(made, seeds=dict(zip(names, counts, strict=True)), history=())
    if group == "none":
        return made
    alone = best(names, scores)
    return replace(made, grouping=_cost(group, mask, alone, complete(alone, labels), sizes))


def _cost(group: str, mask: Tensor, alone: Tensor, completed: Tensor, sizes: Sequence[int]) -> dict[str, Any]:
    size = torch.tensor(sizes)

    def figures(of: Tensor) -> dict[str, int]:
        return {"modules": int(of.sum()), "parameters": int(size[of].sum())}

    return {"group": group, **figures(mask), "without_groups": figures(alone), "completed": figures(completed)}


def _rewritten(run: Selection, mask: Tensor, scores: Tensor, starts: Starts) -> Selection:
    """A selection with another choice, at the ranks and scalings of the start."""
    modules = tuple(
        replace(
            module,
            kept=kept,
            score=score,
            omega=float(kept),
            rank=starts.ranks[module.name] if kept else None,
            scaling=starts.scalings[module.name] if kept else None,
        )
        for module, kept, score in zip(run.modules, mask.tolist(), scores.tolist(), strict=True)
    )
    ranks = {module.name: module.rank for module in modules if module.kept}
    history = tuple(
        {**entry, "kept": list(ranks), "ranks": ranks} if "kept" in entry else entry for entry in run.history
    )
    after = sum(starts.sizes[name] for name in ranks)
    return replace(
        run,
        modules=modules,
        history=history,
        trainable_parameters={**run.trainable_parameters, "after": after},
    )
