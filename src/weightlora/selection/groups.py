"""Modules that kernels and servers fuse: found by their names, and chosen whole."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..budget import Budget
from ..errors import ConfigError
from ..layers import blocks_of
from ..rules.base import rank_last
from ..values import check_known

GROUPS = ("none", "qkv", "mlp", "layer")
"""What is chosen whole: single modules; query, key and value of an attention; the linears of an MLP; a whole layer."""

QKV = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
)
MLP = (
    ("gate_proj", "up_proj", "gate_up_proj", "down_proj"),
    ("w1", "w2", "w3"),
    ("Wi", "Wo"),
    ("wi", "wi_0", "wi_1", "wo"),
    ("fc1", "fc2"),
    ("c_fc", "c_proj"),
    ("lin1", "lin2"),
    ("fc_in", "fc_out"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("ffn", "ffn_output"),
    ("linear_fc1", "linear_fc2"),
    ("input_linear", "output_linear"),
    ("intermediate_dense", "output_dense"),
)
NESTED = ("intermediate.dense", "output.dense")
"""The MLP of BERT and its kind: two modules that each have a parent of their own in the layer."""


def labels_for(names: Sequence[str], group: str) -> list[str]:
    """For each module the name of its group, its own name where it is alone.

    Args:
        names: Full names of modules.
        group: One of `GROUPS`.

    Raises:
        ConfigError: If there is no such group.

    Example:
        ```python
        labels_for(["0.attn.q_proj", "0.attn.k_proj", "0.attn.o_proj"], "qkv")
        # ["0.attn.[q_proj+k_proj+v_proj]", "0.attn.[q_proj+k_proj+v_proj]", "0.attn.o_proj"]
        ```
    """
    check_known("group", group, GROUPS)
    if group == "none":
        return list(names)
    if group == "layer":
        return [block or name for block, name in zip(blocks_of(names), names, strict=True)]
    labels = [_fused(name, QKV if group == "qkv" else MLP) or name for name in names]
    if group == "mlp":
        labels = [_nested(name) or label for name, label in zip(names, labels, strict=True)]
    members = Counter(labels)
    return [label if members[label] > 1 else name for name, label in zip(names, labels, strict=True)]


def _fused(name: str, families: Sequence[Sequence[str]]) -> str | None:
    parent, _, leaf = name.rpartition(".")
    family = next((family for family in families if leaf in family), None)
    return None if family is None else f"{parent}.[{'+'.join(family)}]".lstrip(".")


def _nested(name: str) -> str | None:
    """The MLP of a layer of BERT. Its attention has an `output.dense`, too, in a parent without `intermediate`."""
    for tail in NESTED:
        if name == tail or name.endswith(f".{tail}"):
            return f"{name.removesuffix(tail)}[{'+'.join(NESTED)}]"
    return None


def check_groups(labels: Sequence[str], sizes: Sequence[int], budget: Budget, group: str) -> None:
    """Raise a `ConfigError` if no group fits into the budget.

    Args:
        labels: From `labels_for`.
        sizes: Parameters of each module.
        budget: Of one round.
        group: Named in the message.
    """
    number, parameters = budget.rounds[-1]
    groups = _members(labels)
    counts = [len(members) for members in groups.values()]
    if number is not None and min(counts) > number:
        raise ConfigError(
            f"group={group!r} has at least {min(counts)} modules in each group, and keep is {number}: keep "
            f"{min(counts)} or more, or choose smaller groups."
        )
    fitting = [members for members in groups.values() if number is None or len(members) <= number]
    least = min(sum(sizes[index] for index in members) for members in fitting)
    if least > parameters:
        raise ConfigError(
            f"group={group!r} has groups of at least {least:,} parameters, and the budget is {parameters:,}: raise "
            "keep_parameters, or choose smaller groups."
        )


def choose(scores: Tensor, sizes: Sequence[int], labels: Sequence[str], budget: Budget) -> Tensor:
    """Mask of the modules that stay if groups are chosen whole, best first, each that still fits into the budget.

    Args:
        scores: Of the groups, as every member has them: shape `(n,)`.
        sizes: Parameters of each module.
        labels: From `labels_for`.
        budget: Of one round. It counts modules and their parameters.
    """
    groups = list(_members(labels).values())
    if len(groups) == len(labels):
        return budget.best(scores, list(sizes), 0)
    number, parameters = budget.rounds[0]
    left, room = math.inf if number is None else number, parameters
    mask = torch.zeros(len(labels), dtype=torch.bool)
    order = torch.sort(scores[[members[0] for members in groups]], descending=True, stable=True).indices
    for members in (groups[index] for index in order.tolist()):
        size = sum(sizes[index] for index in members)
        if len(members) <= left and size <= room:
            mask[members] = True
            left, room = left - len(members), room - size
    return mask


def of_groups(scores: Tensor, labels: Sequence[str]) -> Tensor:
    """For each module the sum of the scores in its group, shape `(n,)`.

    A sum of exactly 0 is no evidence, and comes after every other one.
    """
    sums = scores.clone()
    for members in _members(labels).values():
        sums[members] = scores[members].sum()
    return rank_last(sums, sums == 0)


def complete(mask: Tensor, labels: Sequence[str]) -> Tensor:
    """The mask with every group whole of which a module stays."""
    kept = {label for label, stays in zip(labels, mask.tolist(), strict=True) if stays}
    return torch.tensor([label in kept for label in labels])


def mean_ranks(scores: Sequence[Tensor]) -> Tensor:
    """For each entry the mean over several score vectors of its rank: 1 for the largest; equal ones share a rank.

    Args:
        scores: Each of shape `(n,)`.

    Returns:
        Shape `(n,)`, float64.
    """
    ranks = []
    for one in scores:
        _, place, counts = torch.unique(-one, return_inverse=True, return_counts=True)
        ranks.append((counts.cumsum(0) - (counts - 1) / 2)[place])
    return torch.stack(ranks).double().mean(0)


def _members(labels: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    return members
