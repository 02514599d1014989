"""Projections of the gates. Pure functions of one-dimensional tensors; masks go by index, so ties never add one."""

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int) -> Tensor:
    """Mask of the `k` largest scores; among equals the lower index wins.

    Args:
        scores: Shape `(n,)`, finite.
        k: How many to keep, in `[0, n]`.

    Returns:
        Bool tensor of shape `(n,)` with exactly `k` true entries.
    """
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    mask[torch.sort(scores, descending=True, stable=True).indices[:k]] = True
    return mask


def top_k_within(scores: Tensor, k: int, sizes: list[int], budget: int) -> Tensor:
    """Mask of the `k` largest scores, a large adapter exchanged for a smaller one until they fit into the budget.

    Each exchange is the one that costs least score per parameter saved. With two sizes that finds the best `k` that
    fit; with more it may leave a little of the budget.

    Args:
        scores: Shape `(n,)`, finite.
        k: How many to keep, in `[0, n]`.
        sizes: Parameters of each adapter.
        budget: The most parameters that the kept adapters may have together; the `k` smallest must fit.

    Returns:
        Bool tensor of shape `(n,)` with exactly `k` true entries, whose sizes add up to `budget` or less.
    """
    mask, size = top_k(scores, k), torch.tensor(sizes, dtype=torch.float64)
    while float(size[mask].sum()) > budget:
        kept, left = mask.nonzero().flatten(), (~mask).nonzero().flatten()
        cost, saved = (values[kept, None] - values[None, left] for values in (scores, size))
        price = torch.where(saved > 0, cost / saved, torch.inf)
        exchange = int(price.argmin())
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
    mask = torch.zeros(scores.shape, dtype=torch.bool)
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
    taus = (descending.cumsum(0) - 1) / torch.arange(1, len(values) + 1, dtype=values.dtype)
    support = int((descending > taus).sum())
    return (values - taus[support - 1]).clamp(min=0)
