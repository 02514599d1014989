"""When the selection does what. Pure functions of the step number (1 is the first optimizer step)."""

import math
from collections.abc import Sequence
from typing import Literal

Phase = Literal["warmup", "select", "train"]


def phase_at(step: int, warmup_steps: int, select_steps: int) -> Phase:
    """Phase of the given optimizer step: `step <= warmup_steps` warms up, `step > select_steps` trains."""
    if step > select_steps:
        return "train"
    return "select" if step > warmup_steps else "warmup"


def round_ends(warmup_steps: int, select_steps: int, rounds: int) -> list[int]:
    """Last step of each round: the steps after the warm-up in equal shares; the last is always `select_steps`.

    Returns:
        `rounds` step numbers, strictly increasing where `select_steps - warmup_steps >= rounds`.
    """
    length = select_steps - warmup_steps
    return [warmup_steps + math.ceil(length * i / rounds) for i in range(1, rounds + 1)]


def round_budgets(start: int, target: int, rounds: int) -> list[int]:
    """What is left after each round (adapters or parameters): the same ratio each time, and `target` at the end."""
    ratio = target / start
    budgets = [max(target, round(start * ratio ** (i / rounds))) for i in range(1, rounds)]
    return [*budgets, target]


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
        ValueError: If `parameters` has no room for the smallest adapters.
    """
    n, total = len(sizes), sum(sizes)
    if parameters is None:
        assert number is not None
        return [(k, total * k // n if share else total) for k in round_budgets(n, number, rounds)]
    least = sum(sorted(sizes)[: number or 1])
    if parameters < least:
        what, remedy = ("smallest adapter", "") if number is None else (f"{number} smallest adapters", "keep fewer, ")
        raise ValueError(
            f"keep_parameters={parameters} is less than the {least} parameters of the {what}: raise it, {remedy}or "
            "lower the rank."
        )
    return [(number, most) for most in round_budgets(total, min(parameters, total), rounds)]


def thresholds(step: int, warmup_steps: int, every: int) -> bool:
    """Whether the gates are projected after this step (the end of a round projects anyway)."""
    return step > warmup_steps and (step - warmup_steps) % every == 0
