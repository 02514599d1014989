"""What is checked before a prefix cache opens: model, dropout, directory and room."""

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from ..errors import DataError
from ..files import check_writable
from ..values import check_known
from .cut import Cut, check_dropout, find_cut, identity_of
from .store import DATA, check_identity

PREFIX_DROPOUT = ("refuse", "off")
SHARE_OF_FREE = 0.9
"""Of the free bytes on the disk, what a cache without `max_bytes` may take."""


def check_prefix(
    model: nn.Module,
    directory: str | os.PathLike[str],
    max_bytes: int | None = None,
    prefix_dropout: str = "refuse",
    tokens: int | None = None,
) -> Cut:
    """Everything that can be told before training, also before the choice: model, dropout, directory and room.

    Returns:
        Where the model is cut now.

    Raises:
        WeightLoraError: Something does not fit.
    """
    check_known("prefix_dropout", prefix_dropout, PREFIX_DROPOUT)
    check_writable(directory)
    cut = find_cut(model)
    check_dropout(cut, prefix_dropout)
    for place in sorted(Path(directory).glob("block-*")):
        first = place.name.removeprefix("block-")
        if first.isdecimal() and 0 < int(first) < len(cut.blocks):
            check_identity(place, identity_of(cut, int(first)))
    room, need = room_in(Path(directory), max_bytes), most_bytes(cut, tokens)
    if need is not None and need > room:
        raise DataError(
            f"the hidden states of {tokens:,} tokens take up to {need:,} bytes, and {directory} may take {room:,}: "
            "give a larger max_bytes or a directory on a larger disk, or leave the prefix cache out."
        )
    return cut


def most_bytes(cut: Cut, tokens: int | None) -> int | None:
    """An upper estimate for so many tokens; None if they or the model's width are not known."""
    width = getattr(getattr(cut.backbone, "config", None), "hidden_size", None)
    dtype = next((p.dtype for p in cut.backbone.parameters() if p.is_floating_point()), torch.float32)
    return None if tokens is None or width is None else tokens * width * dtype.itemsize


def room_in(directory: Path, max_bytes: int | None, own: Path | None = None) -> int:
    """The most bytes that the caches in a directory may have, those that they have already included.

    Args:
        directory: Of the caches.
        max_bytes: The most bytes of all together. None means 90 % of the free disk.
        own: The folder of one of them, and what may be added to it is given instead.

    Raises:
        DataError: There is no room for so many, or for `own` beside the others.
    """
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    used = _bytes_in(directory)
    others = 0 if own is None else used - _bytes_in(own)
    if max_bytes is None:
        max_bytes = used + int(SHARE_OF_FREE * free)
    if max_bytes > used + free:
        raise DataError(
            f"max_bytes={max_bytes:,} is more than the {used + free:,} bytes that {directory} has room for: give "
            "fewer bytes, or a directory on a larger disk."
        )
    if others >= max_bytes:
        raise DataError(
            f"max_bytes={max_bytes:,} is no more than the {others:,} bytes of other caches in {directory}: delete "
            "them, or give more bytes."
        )
    return max_bytes if own is None else max(0, max_bytes - used)


def _bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob(f"**/process-*/{DATA}"))
