"""The set of adapters with the largest score that fits into a budget of time or memory."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .model import Costs

CELLS, MOST_CELLS = 2e7, 1e9
"""Entries of the largest table, as a rule and at most. They set the unit in which costs are counted."""
PARTS = 6
"""So many bounds on what one block keeps are tried, where blocks recompute."""
MOST_UNITS, LEAST_UNITS = 20_000, 8  # in all, and for each adapter that is kept


def best_within(costs: Costs, score: Tensor, budget: float, number: int | None) -> Tensor | None:
    """Mask of the adapters with the largest sum of scores whose predicted cost is at most the budget.

    Every lowest group is tried, and with each the best set above it, by dynamic programming over number and cost.
    Costs are counted in small units and rounded up, so the result is always within the budget, and the best set up to
    this rounding: with 210 adapters of which 52 are kept, a unit is 1/1800 of what the budget leaves for adapters.
    Whole numbers are not rounded if their greatest common divisor is no smaller than this unit. Where blocks recompute
    their activations, it is about the best set: a few bounds on what one block keeps are tried.

    If scores of 0 get a set, all scores do.

    Args:
        costs: Of the n adapters.
        score: Shape `(n,)`, finite.
        budget: In the unit of the costs.
        number: How many adapters exactly; None for as many as it takes, but at least one. Then an adapter with a score
            below 0 is kept only where it is the best of those that fit.

    Returns:
        Bool tensor of shape `(n,)`; None if nothing fits.

    Raises:
        ConfigError: The table would have more than 10^9 entries.
    """
    found = [mask for bound in _bounds(costs) if (mask := _best(costs, score, budget, number, bound)) is not None]
    if found:
        return max(found, key=lambda mask: float(score[mask].sum()))
    if number is not None and costs.predict(least := cheapest(costs, number)) <= budget:
        return least.to(score.device)  # rounding took its room
    # where blocks recompute, scores decide which adapters take part
    return best_within(costs, torch.zeros_like(score), budget, number) if score.any() else None


def _bounds(costs: Costs) -> list[float]:
    """What one block may keep while it recomputes; 0 where none recomputes."""
    kept = costs.by_block(range(len(costs.own)))
    return [kept[0] * part / PARTS for part in range(1, PARTS + 1)] if kept else [0.0]


def _best(costs: Costs, score: Tensor, budget: float, number: int | None, bound: float) -> Tensor | None:
    """The best set in which no block keeps more than the bound. In each, those with the best scores take part."""
    chosen = _Table(_bounded(costs, score, budget, bound), score.double().numpy(), budget, number).best()
    if chosen is None and number is None:  # one that lowers the sum is better than none
        every = range(len(score))
        fits = [i for i in every if costs.predict([i == other for other in every]) <= budget]
        chosen = [max(fits, key=lambda i: float(score[i]))] if fits else None
    if chosen is None:
        return None
    mask = [index in chosen for index in range(len(score))]
    if number is None:  # rounding may have left room for more
        for index in score.argsort(descending=True, stable=True).tolist():
            if score[index] > 0 and not mask[index]:
                mask[index] = True
                mask[index] = costs.predict(mask) <= budget
    return torch.tensor(mask, device=score.device)


def _bounded(costs: Costs, score: Tensor, budget: float, bound: float) -> Costs:
    """Costs in which the bound is paid, and an adapter that would break it costs more than the budget."""
    if not costs.passing:
        return costs
    own, left = [*costs.own], dict.fromkeys(costs.blocks, bound * (1 + 1e-9))
    for index in score.argsort(descending=True, stable=True).tolist():
        if costs.passing[index] <= left[costs.blocks[index]]:
            left[costs.blocks[index]] -= costs.passing[index]
        else:
            own[index] = math.ceil(budget) + 1.0
    return replace(costs, depth=[price + bound for price in costs.depth], own=own, passing=[], blocks=[])


def cheapest(costs: Costs, number: int) -> Tensor:
    """Mask of about the `number` adapters that cost least: for each lowest group, the cheapest ones above it.

    Where blocks recompute, this is tried with each bound on what one block keeps.
    """
    found = []
    least_passing = -torch.tensor(costs.passing, dtype=torch.float64, device="cpu")
    for bound in _bounds(costs):
        own = _bounded(costs, least_passing, costs.whole, bound).own
        for lowest in range(len(costs.depth)):
            within = [i for i, group in enumerate(costs.groups) if group <= lowest]
            within.sort(key=lambda i: own[i] + costs.shared[costs.groups[i]])
            if len(within) >= number:
                mask = torch.zeros(len(own), dtype=torch.bool, device="cpu")
                mask[within[:number]] = True
                found.append(mask)
    return min(found, key=costs.predict)


class _Table:
    """`value[k, u]`: the largest sum of scores of k adapters that cost u units or less, without the price of depth.

    Without a number to keep, there is one row for any number.
    """

    def __init__(self, costs: Costs, score: np.ndarray, budget: float, number: int | None) -> None:
        self._costs, self._score, self._number = costs, score, number
        rows = 1 if number is None else number + 1
        left = budget - costs.depth[0]
        units = int(max(LEAST_UNITS * rows, min(MOST_UNITS, CELLS / (rows * len(score)))))
        if units * rows * len(score) > MOST_CELLS:
            raise ConfigError(
                f"keep={number} of {len(score)} adapters within a budget of {costs.resource} is too large to solve: "
                "leave keep out, to keep as many as fit."
            )
        self._unit = left / units if left > 0 else 1.0
        prices = [*costs.own, *costs.shared]
        if all(float(price).is_integer() for price in prices):
            exact = math.gcd(*map(int, prices))  # rounding up would take the room of a set that just fits
            if self._unit <= exact:
                self._unit, units = float(exact), int(max(0.0, left) // exact)
        self._shape = (rows, units + 1)
        self._room = [int((budget - depth) / self._unit + 1e-9) if budget >= depth else -1 for depth in costs.depth]
        self._members: list[list[int]] = [[] for _ in costs.depth]
        for index, group in enumerate(costs.groups):
            self._members[group].append(index)

    def best(self) -> list[int] | None:
        """Indices of the adapters of the best set; None if nothing fits."""
        value = np.full(self._shape, -np.inf)
        value[0] = 0.0
        found, ends, steps = -np.inf, None, []
        for group, members in enumerate(self._members):
            if (room := self._room[group]) < 0:
                break
            opened = _shift(value, 0, self._units(self._costs.shared[group]))
            taken = []
            inside = np.full(self._shape, -np.inf)  # with at least one of this group
            for index in members:
                # adapter `index` is the first of the group, or joins others
                price = self._units(self._costs.own[index])
                rows = 0 if self._number is None else 1
                first = _shift(opened, rows, price) + self._score[index]
                joins = _shift(inside, rows, price) + self._score[index]
                choice = np.zeros(self._shape, dtype=np.uint8)
                choice[first > inside] = 1
                better = np.maximum(first, inside)
                choice[joins > better] = 2
                inside = np.maximum(better, joins)
                taken.append(choice)
            last = inside[-1, : room + 1]
            if len(last) and last.max() > found and np.isfinite(last.max()):
                found, ends = float(last.max()), (group, int(last.argmax()))
            came = inside > value
            value = np.where(came, inside, value)
            steps.append((members, taken, came))
        if ends is None or (self._number is None and found < 0):
            return None
        return self._trace(steps, *ends)

    def _trace(self, steps: list[tuple[list[int], list[np.ndarray], np.ndarray]], group: int, units: int) -> list[int]:
        """The adapters by which the best value came about."""
        row, chosen, inside = self._shape[0] - 1, [], True
        for place in range(group, -1, -1):
            members, taken, came = steps[place]
            if not (inside or came[row, units]):
                continue
            for index, choice in zip(reversed(members), reversed(taken), strict=True):
                if how := choice[row, units]:
                    chosen.append(index)
                    row -= 0 if self._number is None else 1
                    units -= self._units(self._costs.own[index])
                    if how == 1:
                        units -= self._units(self._costs.shared[place])
                        break
            inside = False
        return chosen

    def _units(self, cost: float) -> int:
        return int(np.ceil(cost / self._unit - 1e-9))


def _shift(value: np.ndarray, rows: int, units: int) -> np.ndarray:
    """The table after adapters that take so many rows and units; what came from outside is not possible."""
    shifted = np.full(value.shape, -np.inf)
    if rows < value.shape[0] and units < value.shape[1]:
        shifted[rows:, units:] = value[: value.shape[0] - rows, : value.shape[1] - units]
    return shifted
