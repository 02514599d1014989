"""When the selection does what. Pure functions of the step number (1 is the first optimizer step)."""

import math
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


def thresholds(step: int, warmup_steps: int, every: int) -> bool:
    """Whether the gates are projected after this step (the end of a round projects anyway)."""
    return step > warmup_steps and (step - warmup_steps) % every == 0
