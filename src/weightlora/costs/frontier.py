"""What each budget of time or memory would buy, as values that JSON can hold, and the cost of a choice in words."""

from collections.abc import Sequence
from typing import Any

import torch

from .model import Costs, amount_in_words
from .packing import best_within

BUDGETS = 12


def frontier(costs: Costs, scores: Sequence[float], number: int | None = None) -> list[dict[str, Any]]:
    """The best set within each of a dozen budgets, from the cheapest adapter to all of them.

    Args:
        costs: Of the n adapters.
        scores: Of the n adapters.
        number: How many adapters exactly; None for as many as it takes.

    Returns:
        For each set that is better than the one before: `budget` and `cost`, in the unit of the costs; `kept`, the
        number of adapters; and `score`, the sum of theirs.
    """
    values = torch.tensor(scores, dtype=torch.float64, device="cpu")
    least = min(costs.predict([i == one for i in range(len(scores))]) for one in range(len(scores)))
    points: list[dict[str, Any]] = []
    for step in range(BUDGETS + 1):
        budget = (least + (costs.whole - least) * step / BUDGETS) * (1 + 1e-9)
        mask = best_within(costs, values, budget, number)
        if mask is None:
            continue
        point = {"cost": costs.predict(mask), "kept": int(mask.sum()), "score": float(values[mask].sum())}
        if not points or points[-1]["score"] < point["score"]:
            points.append({"budget": budget, **point})
    return points


def in_words(resource: str, predicted: float, budget: float, whole: float) -> str:
    """One sentence about the cost of a choice.

    Args:
        resource: `"step_time"` or `"memory"`.
        predicted, budget: Of the choice, in seconds or bytes.
        whole: The same with all adapters.
    """
    amount, bound = (amount_in_words(resource, cost, whole) for cost in (predicted, budget))
    verb = "uses" if resource == "memory" else "takes"
    return f"A step {verb} {amount} by prediction; the budget is {bound.partition(' of ')[0]}."
