"""Where an adapter is in the model: in the lower, the middle or the upper third of its layers."""

from collections.abc import Sequence

from weightlora.layers import block_of

THIRDS = ("lower", "middle", "upper")


def thirds_of_depth(names: Sequence[str]) -> list[str | None]:
    """The third of the depth that each module is in: one of `THIRDS`, or None outside the layers (a pooler, a head).

    If the number of layers is not divisible by three, the lower thirds have one layer more.

    Args:
        names: Names of all modules, in the order of the model.
    """
    blocks = [block_of(name) for name in names]
    layers = {block: place for place, block in enumerate(dict.fromkeys(filter(None, blocks)))}
    return [THIRDS[layers[block] * len(THIRDS) // len(layers)] if block else None for block in blocks]
