"""The budget: when the selection does what, how many adapters each round keeps, and the projections that keep them.

Pure functions. Step 1 is the first optimizer step. Masks go by index, so ties never add an adapter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import ConfigError
from .wording import counted

Phase = Literal["warmup", "select", "train"]


def phase_at(step: int, warmup_steps: int, select_steps: int) -> Phase:
    """Phase of an optimizer step: 1 to `warmup_steps` warm up, those above `select_steps` train; 0 is a probe."""
    if step > select_steps:
        return "train"
    return "warmup" if 0 < step <= warmup_steps else "select"


def round_ends(warmup_steps: int, select_steps: int, rounds: int) -> list[int]:
    """Last step of each round: the steps after the warm-up in equal shares; the last is always `select_steps`.

    Returns:
        `rounds` step numbers, strictly increasing where `select_steps - warmup_steps >= rounds`.
    """
    length = select_steps - warmup_steps
    return [warmup_steps + math.ceil(length * i / rounds) for i in range(1, rounds + 1)]


def rounds_due(step: int, warmup_steps: int, select_steps: int, rounds: int) -> int:
    """How many rounds end at this step or before it."""
    return sum(end <= step for end in round_ends(warmup_steps, select_steps, rounds))


def round_budgets(start: int, target: int, rounds: int) -> list[int]:
    """What is left after each round (adapters or parameters): the same ratio each time, and `target` at the end."""
    ratio = target / start
    budgets = [max(target, round(start * ratio ** (i / rounds))) for i in range(1, rounds)]
    return [*budgets, target]


@dataclass(frozen=True)
class Budget:
    """What each round keeps: a number of adapters (None: as many as fit), and the most parameters they may have."""

    rounds: tuple[tuple[int | None, int], ...]

    def best(self, score: Tensor, sizes: list[int], round_: int) -> Tensor:
        """Mask of the adapters with the largest scores that a round keeps.

        Args:
            score: Shape `(n,)`, finite, of the adapters that are left.
            sizes: Their parameters.
            round_: 0 for the first round.
        """
        number, parameters = self.rounds[round_]
        if number is not None:
            return top_k_within(score, number, sizes, parameters)
        # What cannot fit in the end goes first, or it could crowd out all that can.
        last = self.rounds[-1][1]
        return top_by_parameters(score, [s if s <= last else parameters + 1 for s in sizes], parameters)


def plan_budgets(
    sizes: Sequence[int], number: int | None, parameters: int | None, rounds: int, share: bool
) -> list[tuple[int | None, int]]:
    """What each round keeps: a number of adapters (None: as many as fit), and the most parameters they may have.

    Args:
        sizes: Parameters of each adapter.
        number: K, or None.
        parameters: The bound on what K adapters, or all that fit, have together; None for no bound of the user's.
        rounds: How many; 1 where both `number` and `parameters` are given.
        share: Without `parameters`, whether K adapters get K / n of all parameters. The K smallest always fit into
            that, round after round.

    Raises:
        ConfigError: If `parameters` has no room for the smallest adapters.
    """
    n, total = len(sizes), sum(sizes)
    if parameters is None:
        assert number is not None
        return [(k, total * k // n if share else total) for k in round_budgets(n, number, rounds)]
    least = sum(sorted(sizes)[: number or 1])
    if parameters < least:
        what, remedy = ("smallest adapter", "") if number is None else (f"{number} smallest adapters", "keep fewer, ")
        raise ConfigError(
            f"keep_parameters allows {counted(parameters, 'parameter')}, less than the {least:,} of the "
            f"{what}: raise it, {remedy}or lower the rank."
        )
    return [(number, most) for most in round_budgets(total, min(parameters, total), rounds)]


def projects_after(step: int, warmup_steps: int, every: int) -> bool:
    """Whether the gates are projected after this step (the end of a round projects anyway)."""
    return step > warmup_steps and (step - warmup_steps) % every == 0


def top_k(scores: Tensor, k: int) -> Tensor:
    """Mask of the `k` largest scores; among equals the lower index wins.

    Args:
        scores: Shape `(n,)`, finite.
        k: How many to keep, in `[0, n]`.

    Returns:
        Bool tensor of shape `(n,)` with exactly `k` true entries.
    """
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[torch.sort(scores, descending=True, stable=True).indices[:k]] = True
    return mask


def top_k_within(scores: Tensor, k: int, sizes: list[int], budget: int) -> Tensor:
    """Mask of `k` large scores that fit into the budget, found by exchanges from the `k` largest.

    Until they fit, each exchange is the one that costs least score per parameter saved. With two sizes that finds the
    best `k` that fit. With more, further exchanges raise the score, until no single one does.

    Args:
        scores: Shape `(n,)`, finite.
        k: How many to keep, in `[0, n]`.
        sizes: Parameters of each adapter.
        budget: The most parameters that the kept adapters may have together; the `k` smallest must fit.

    Returns:
        Bool tensor of shape `(n,)` with exactly `k` true entries, whose sizes add up to `budget` or less.
    """
    mask, size = top_k(scores, k), torch.tensor(sizes, dtype=torch.float64, device=scores.device)
    while 0 < k < len(sizes):
        kept, left = mask.nonzero().flatten().flip(0), (~mask).nonzero().flatten()  # of equals, the last one goes
        cost, saved = (values[kept, None] - values[None, left] for values in (scores, size))
        over = float(size[mask].sum()) - budget
        price = torch.where(saved > 0, cost / saved, torch.inf) if over > 0 else torch.where(saved >= over, cost, 0.0)
        exchange = int(price.argmin())
        if over <= 0 and price.flatten()[exchange] >= 0:
            break
        mask[kept[exchange // len(left)]] = False
        mask[left[exchange % len(left)]] = True
    return mask


def top_by_parameters(scores: Tensor, sizes: list[int], budget: int) -> Tensor:
    """Mask of adapters taken in descending order of score, each one that still fits into the budget.

    Args:
        scores: Shape `(n,)`, finite.
        sizes: Parameters of each adapter.
        budget: The most parameters that the kept adapters may have together.

    Returns:
        Bool tensor of shape `(n,)`; the sizes of its true entries add up to `budget` or less.
    """
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for index in torch.sort(scores, descending=True, stable=True).indices.tolist():
        if sizes[index] <= budget:
            mask[index] = True
            budget -= sizes[index]
    return mask


def project_simplex(values: Tensor) -> Tensor:
    """Euclidean projection onto the probability simplex `{x : x >= 0, sum x = 1}`, exact up to rounding.

    The projection is `max(values - tau, 0)`; tau follows from the sorted values (Held, Wolfe and Crowder, 1974).

    Args:
        values: Shape `(n,)`, finite, `n >= 1`.
    """
    values = values - values.max()  # the projection does not mind, and the sums keep their precision
    descending = torch.sort(values, descending=True).values
    taus = (descending.cumsum(0) - 1) / torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    support = int((descending > taus).sum())
    return (values - taus[support - 1]).clamp(min=0)
