"""A place for each module in a grid of layers and module types, from the modules' names alone."""

from collections.abc import Sequence
from typing import NamedTuple

from .layers import blocks_of
from .wording import printable


class Grid(NamedTuple):
    """Where each adapter is drawn.

    Attributes:
        rows: labels of the module types, in model order.
        columns: labels of the layers, ascending; `"-"` at the end for modules outside a layer, if there are any.
        cells: for each adapter, in the order given, its (row, column).
    """

    rows: list[str]
    columns: list[str]
    cells: list[tuple[int, int]]


def lay_out(names: Sequence[str]) -> Grid:
    """A place for each dotted module name: the layer is the number of its block, the type all the rest.

    Leading parts that the types of all layers share are left out of the labels; two stacks (an encoder and a decoder)
    keep rows of their own. A module outside the blocks gets a row of its own, in the column `"-"`.
    """
    split = layers_and_types(names)
    types = list(dict.fromkeys((layer is None, before, after) for layer, before, after in split))
    shared = _shared_parts([before + after for outside, before, after in types if not outside])
    layers = sorted({layer for layer, _, _ in split if layer is not None})
    columns = [str(layer) for layer in layers] + ["-"] * any(layer is None for layer, _, _ in split)
    cells = [
        (types.index((layer is None, before, after)), len(layers) if layer is None else layers.index(layer))
        for layer, before, after in split
    ]
    rows = [printable(".".join(a) if outside else _label(b, a, shared)) for outside, b, a in types]
    return Grid(rows, columns, cells)


def layers_and_types(names: Sequence[str]) -> list[tuple[int | None, tuple[str, ...], tuple[str, ...]]]:
    """`"h.3.attn.q"` as (3, ("h",), ("attn", "q")); without a block everything is behind it.

    The blocks are those of `blocks_of`: in `"0.h.3.attn.q"`, 3 is the layer if 0 is the place in a container.
    """
    found: list[tuple[int | None, tuple[str, ...], tuple[str, ...]]] = []
    for name, block in zip(names, blocks_of(names), strict=True):
        parts, place = tuple(name.split(".")), block.count(".")
        found.append((int(parts[place]), parts[:place], parts[place + 1 :]) if block else (None, (), parts))
    return found


def _shared_parts(types: Sequence[tuple[str, ...]]) -> int:
    """How many leading parts all types share; the last part of a type never counts."""
    shortest = min((len(parts) - 1 for parts in types), default=0)
    return next((i for i in range(shortest) if len({parts[i] for parts in types}) > 1), max(shortest, 0))


def _label(before: tuple[str, ...], after: tuple[str, ...], shared: int) -> str:
    head, tail = before[shared:], after[max(0, shared - len(before)) :]
    return ".".join([*head, "*", *tail] if head else tail)
