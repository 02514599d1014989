"""Rules that could choose adapters, applied to the evidence that a run of LoRA on all modules recorded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from weightlora.budget import plan_budgets, top_k_within
from weightlora.errors import ConfigError
from weightlora.layers import block_of

Scores = np.ndarray

RULES: dict[str, Callable[[Mapping[str, Scores], Scores], Scores]] = {
    "credit": lambda e, sizes: e["credit"],
    "credit-per-block": lambda e, sizes: e["credit"],
    "credit-per-parameter": lambda e, sizes: e["credit"] / sizes,
    "credit-per-root": lambda e, sizes: e["credit"] / np.sqrt(sizes),
    "credit-times-update": lambda e, sizes: e["credit"] * e["update"],
    "next-credit": lambda e, sizes: e["next_credit"],
    "next-credit-over-noise": lambda e, sizes: e["next_credit"] / np.sqrt(e["next_credit_squared"]),
    "gate": lambda e, sizes: e["gate"],
    "gate-over-noise": lambda e, sizes: e["gate"] / np.sqrt(e["gate_squared"]),
    "gradient": lambda e, sizes: e["gradient"],
    "gradient-per-block": lambda e, sizes: e["gradient"],
    "update": lambda e, sizes: e["update"],
    "leave-one-out": lambda e, sizes: e["leave_one_out"],
}
"""Rule -> the score of each adapter, from a record of `EvidenceCallback` and the adapters' sizes. The highest stay.

The scores of rules `...-per-block` are divided by the mean magnitude in the adapter's block.
"""


def choose(
    record: Mapping[str, Any], sizes: Mapping[str, int], rule: str, keep: int, keep_parameters: int | None = None
) -> list[str]:
    """The `keep` adapters that a rule would choose, in the order of the model.

    Args:
        record: What `EvidenceCallback` recorded at one step.
        sizes: Name -> parameters of each adapter, in the order of the model.
        rule: Key in `RULES`.
        keep: K.
        keep_parameters: Limit of their parameters together. If None, the parameters of `keep` average adapters, as
            with `selection="credit"`.

    Raises:
        ConfigError: The rule is unknown, the record lacks its evidence, or even the K smallest adapters exceed the
            limit.
    """
    if rule not in RULES:
        raise ConfigError(f"rule {rule!r} is unknown: choose one of {', '.join(RULES)}.")
    parameters = list(sizes.values())
    try:
        scores = RULES[rule]({name: np.asarray(values) for name, values in record.items()}, np.asarray(parameters))
    except KeyError as error:
        raise ConfigError(f"the record has no {error.args[0]!r}, which rule {rule!r} needs: record it.") from error
    if rule.endswith("-per-block"):
        scores = relative_to_block(scores, list(sizes))
    ((_, most),) = plan_budgets(parameters, keep, keep_parameters, rounds=1, share=True)
    kept = top_k_within(torch.as_tensor(scores, dtype=torch.float64), keep, parameters, most).tolist()
    return [name for name, stays in zip(sizes, kept, strict=True) if stays]


def relative_to_block(scores: Scores, names: Sequence[str]) -> Scores:
    blocks = np.array([block_of(name) for name in names])
    return scores / np.array([np.abs(scores[blocks == block]).mean() or 1.0 for block in blocks])
