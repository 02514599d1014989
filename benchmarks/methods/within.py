"""LoRA on modules that fit into a budget of step time, by prices that were measured once and stored.

`options["prices"]` is a file of `python -m benchmarks prices`. `options["share"]` is the budget, a part of the
step time of LoRA on all modules.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from weightlora.costs import Costs, best_within
from weightlora.errors import ConfigError, DataError
from weightlora.files import read_json
from weightlora.train.methods import Method, Prepared, Setting, all_adapters, keep_only

from .probes import probe_scores
from .subsets import kept_by

Fill = Callable[[Setting, Costs, list[str], float], list[int]]
"""From a setting, prices, names and a budget in seconds to the indices of the modules that are kept."""


def read_prices(path: str, names: list[str]) -> Costs:
    """Prices of the named modules.

    Raises:
        DataError: The file is missing, or it has the prices of other modules.
    """
    if not Path(path).is_file():
        raise DataError(f"the prices {path} are missing: run python -m benchmarks prices first.")
    stored = read_json(Path(path))
    if stored["names"] != names:
        raise DataError(f"{path} has the prices of other modules: measure those of this model.")
    return Costs(**stored["costs"])


def within(fill: Fill, setting: Setting) -> Prepared:
    """LoRA on what `fill` keeps within the budget."""
    share: Any = setting.options.get("share")
    if type(share) not in (int, float) or not 0 < share < 1:
        raise ConfigError(f"share={share!r} is not a part of a step: give a number between 0 and 1.")

    with all_adapters(setting) as adapters:
        names = [adapter.name for adapter in adapters]
    costs = read_prices(str(setting.options.get("prices")), names)
    kept = [names[index] for index in sorted(fill(setting, costs, names, share * costs.whole))]
    if not kept:
        raise ConfigError(f"share={share} has no room for an adapter: raise it.")
    return keep_only(setting.lora(), kept)


def by_probe(setting: Setting, costs: Costs, names: list[str], budget: float) -> list[int]:
    """The best set by the scores of the package's probe."""
    scores = probe_scores(setting)
    mask = best_within(costs, torch.tensor([scores[name] for name in names]), budget, None)
    return [] if mask is None else mask.nonzero().flatten().tolist()


def nearest(setting: Setting, costs: Costs, names: list[str], budget: float) -> list[int]:
    """The modules nearest to the output, as many as fit."""
    return _fill(costs, sorted(range(len(names)), key=lambda index: costs.groups[index]), budget)


def random_as_deep(setting: Setting, costs: Costs, names: list[str], budget: float) -> list[int]:
    """Random modules with the lowest group that the run of `options["like"]` reached at this seed, as many as fit."""
    like = kept_by(str(setting.options.get("like")), setting.seed)
    lowest = max(costs.groups[names.index(name)] for name in like)
    generator = torch.Generator().manual_seed(setting.seed)
    order = torch.randperm(len(names), generator=generator).tolist()
    allowed = [index for index in order if costs.groups[index] <= lowest]
    first = next(index for index in allowed if costs.groups[index] == lowest)
    return _fill(costs, [first, *(index for index in allowed if index != first)], budget)


def _fill(costs: Costs, order: list[int], budget: float) -> list[int]:
    """Modules in this order, each that still fits."""
    kept: list[int] = []
    for index in order:
        tried = {*kept, index}
        if costs.predict([one in tried for one in range(len(costs.own))]) <= budget:
            kept.append(index)
    return kept


METHODS = {
    "within": Method(partial(within, by_probe), frozenset({"prices", "share"}), reads_weights=True),
    "within-nearest": Method(partial(within, nearest), frozenset({"prices", "share"})),
    "within-random": Method(partial(within, random_as_deep), frozenset({"prices", "share", "like"})),
}
