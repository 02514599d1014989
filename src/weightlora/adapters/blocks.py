"""The layouts in which PEFT stores several products in one pair: those of experts, and of grouped convolutions."""

from collections.abc import Sequence

from torch import Tensor

__all__ = ["from_blocks", "to_blocks"]


def to_blocks(which: int, tensor: Tensor, blocks: int, experts: bool) -> Tensor:
    """View a tensor laid out like A (`which=0`) as `(blocks, r, in)`, like B (`which=1`) as `(blocks, out, r)`.

    Args:
        which: 0 for A, 1 for B.
        tensor: As PEFT stores it. The dimensions of a convolution's kernel become a part of `in`.
        blocks: The number of independent products: experts, or groups of a convolution; else 1.
        experts: Whether they are experts. PEFT keeps them last in B, but first in A.
    """
    if which == 1 and experts:
        return tensor.reshape(tensor.shape[0], -1, blocks).permute(2, 0, 1)
    return tensor.reshape(blocks, tensor.shape[0] // blocks, -1)


def from_blocks(which: int, tensor: Tensor, shape: Sequence[int], experts: bool) -> Tensor:
    """The inverse of `to_blocks`, for any rank.

    Args:
        which: 0 for A, 1 for B.
        tensor: `(blocks, r, in)` or `(blocks, out, r)`.
        shape: That of PEFT's tensor, at some rank.
        experts: Whether the blocks are experts.
    """
    if which == 0:
        return tensor.reshape(-1, *shape[1:])
    if experts:
        return tensor.permute(1, 2, 0).reshape(shape[0], -1)
    return tensor.reshape(shape[0], -1, *shape[2:])
