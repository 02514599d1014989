"""Blocks of a model, as the names of its modules tell them."""

from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor


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


def blocks_of(names: Sequence[str], start: int = 0) -> list[str]:
    """The block of each module of a model.

    Blocks of a list are alike. A number is no block, but the place of a model in a container, if numbers follow it and
    no other place of the container has modules of the same names, or there is no module elsewhere:
    `"0.encoder.layer.3.attention.self.query"` beside `"1.linear"` is in `"0.encoder.layer.3"`.

    Args:
        names: Paths of the modules.
        start: How many parts of each path are no block.
    """
    blocks = [block_of(name, start) for name in names]
    members: defaultdict[str, list[str]] = defaultdict(list)
    for block, name in zip(blocks, names, strict=True):
        members[block].append(name)
    below = {block: {_without_numbers(name[len(block) :]) for name in several} for block, several in members.items()}
    inner = dict(zip(names, blocks, strict=True))
    for block, several in members.items():
        if not block or not any("#" in path for path in below[block]):
            continue
        others = [other for other in members if other != block and _list_of(other) == _list_of(block)]
        alone = len(members) == 1 < len(several)
        if alone or (others and all(below[block].isdisjoint(below[other]) for other in others)):
            inner |= zip(several, blocks_of(several, block.count(".") + 1), strict=True)
    return [inner[name] for name in names]


def _list_of(block: str) -> str:
    return block.rpartition(".")[0]


def _without_numbers(path: str) -> str:
    return ".".join("#" if part.isdecimal() else part for part in path.split("."))


def relative_to_blocks(scores: Tensor, names: Sequence[str]) -> Tensor:
    """Each score divided by the mean of its block; 0 in a block whose scores are 0.

    A module outside the blocks, such as a pooler, counts to the block before it in the model. Where no block has two
    adapters of its own, there is nothing to compare in a block, and scores are divided by the mean of all.

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
    inside = [block for block in blocks if block]
    groups = [*members.values()] if len({*inside}) < len(inside) else [[*range(len(names))]]
    relative = scores.clone()
    for indices in groups:
        relative[indices] /= scores[indices].mean() or 1
    return relative
