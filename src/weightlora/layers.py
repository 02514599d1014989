"""Blocks of a model, as the names of its modules tell them."""

from collections import defaultdict
from collections.abc import Sequence
from posixpath import commonpath

from torch import Tensor

__all__ = ["block_of", "blocks_of", "relative_to_blocks"]


def block_of(name: str, start: int = 0) -> str:
    """The block that a module is in: its path up to the first number, or nothing if it has none.

    `"encoder.layer.3.attention.self.query"` is in `"encoder.layer.3"`.

    Args:
        name: Path of the module.
        start: How many parts of the path are no block, whatever they are.
    """
    parts = name.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdecimal() and place >= start), -1)
    return ".".join(parts[: place + 1])


def blocks_of(names: Sequence[str]) -> list[str]:
    """The block of each module of a model.

    A number that all paths share is the place of the model in a container, if there is a number after it:
    `"0.encoder.layer.3.attention.self.query"` is in `"0.encoder.layer.3"`.
    """
    paths = [name.replace(".", "/") for name in names]
    shared = commonpath(paths).count("/") + 1 if len(paths) > 1 and commonpath(paths) else 0
    is_container = any(block_of(name, shared) for name in names)
    return [block_of(name, shared * is_container) for name in names]


def relative_to_blocks(scores: Tensor, names: Sequence[str]) -> Tensor:
    """Each score divided by the mean of its block; 0 in a block whose scores are 0.

    A module outside the blocks, such as a pooler, counts to the block before it in the model. Where no block has two
    adapters, there is nothing to compare in a block, and scores are divided by the mean of all.

    Args:
        scores: Shape `(n,)`, not negative.
        names: The n adapters, in model order.
    """
    found = zip(names, blocks_of(names), strict=True)
    blocks = ["" if block == name else block for name, block in found]  # "0" is a module, not a block
    present = next(filter(None, blocks), "")
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, block in enumerate(blocks):
        present = block or present
        members[present].append(index)
    groups = [*members.values()] if len(members) < len(names) else [[*range(len(names))]]
    relative = scores.clone()
    for indices in groups:
        relative[indices] /= scores[indices].mean() or 1
    return relative
