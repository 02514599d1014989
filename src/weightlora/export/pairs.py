"""The pairs `(A, B)` of a saved adapter: fold the scaling into B, pad the rank, and compare what two pairs add."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..adapters.handles import from_blocks, to_blocks
from ..errors import ModelError
from ..tensors import dtype_name

PREFIX = "base_model.model."
"""Before the names of the model's modules in PEFT's files."""

Kind = Literal["linear", "convolution", "embedding", "parameter"]


@dataclass(frozen=True, eq=False)
class Pair:
    """One adapter as it is saved: it adds `scaling * B A` to a weight.

    Attributes:
        name: What PEFT's config calls the adapted module or parameter.
        path: Where PEFT keeps it in the model: the tensors' names in the file begin with it.
        kind: What is adapted. A linear layer may be a Conv1D of GPT-2, too: the pair is the same.
        a: A as PEFT stores it; linear: `(r, in)`.
        b: B as PEFT stores it; linear: `(out, r)`.
        rank: PEFT's r; of each expert where there are several.
        scaling: The factor s before `B A`.
        blocks: Independent products in this pair: experts, or groups of a convolution.
    """

    name: str
    path: str
    kind: Kind
    a: Tensor
    b: Tensor
    rank: int
    scaling: float
    blocks: int = 1

    @property
    def experts(self) -> bool:
        """Whether the blocks are experts."""
        return self.kind == "parameter"

    @property
    def unit(self) -> int:
        """What the rank must be a multiple of: PEFT spreads it over the groups of a convolution."""
        return 1 if self.experts else self.blocks

    def in_blocks(self) -> tuple[Tensor, Tensor]:
        """A as `(blocks, r, in)` and B as `(blocks, out, r)`, in float64."""
        a, b = (
            to_blocks(which, tensor, self.blocks, self.experts).double()
            for which, tensor in enumerate((self.a, self.b))
        )
        return a, b


def common_rank(pairs: Iterable[Pair]) -> int:
    """The smallest rank that all pairs can be padded to."""
    pairs = list(pairs)
    unit = math.lcm(*(pair.unit for pair in pairs))
    largest = max(pair.rank for pair in pairs)
    return -(-largest // unit) * unit


def fold(pair: Pair, rank: int | None = None, dtype: torch.dtype = torch.float32) -> Pair:
    """The same adapter with a scaling of 1: B is multiplied by it. Both are padded with zeros to a rank.

    Args:
        pair: Left as it is.
        rank: The new rank, a multiple of `pair.unit`; None keeps the present one.
        dtype: Of the new A and B. The product is computed in float64.

    Raises:
        ModelError: If an entry is too large for the dtype.
    """
    a, b = pair.in_blocks()
    b = b * pair.scaling
    rows = 0 if rank is None else rank // pair.unit - a.shape[1]
    a = torch.cat([a, a.new_zeros(a.shape[0], rows, a.shape[2])], 1)
    b = torch.cat([b, b.new_zeros(*b.shape[:2], rows)], 2)
    new_a = from_blocks(0, a, pair.a.shape, pair.experts).to(dtype).contiguous()
    new_b = from_blocks(1, b, pair.b.shape, pair.experts).to(dtype).contiguous()
    if not (new_a.isfinite().all() and new_b.isfinite().all()):
        raise ModelError(
            f"adapter {pair.name!r} has entries that are no finite {dtype_name(dtype)} once its "
            f"scaling of {pair.scaling:g} is folded into B: set dtype='float32'."
        )
    return replace(pair, a=new_a, b=new_b, rank=pair.rank if rank is None else rank, scaling=1.0)


def difference(first: Pair, second: Pair) -> float:
    """How far apart two adapters of one module are: `||D1 - D2|| / ||D1||` for `D = scaling * B A`, Frobenius norms.

    The products are not formed, so a large embedding costs no more memory than its pair. Where the first adds nothing,
    this is the norm of what the second adds. Infinite where the shapes do not fit together.
    """
    (a1, b1), (a2, b2) = first.in_blocks(), second.in_blocks()
    if (a1.shape[0], a1.shape[2], b1.shape[1]) != (a2.shape[0], a2.shape[2], b2.shape[1]):
        return math.inf
    b1, b2 = b1 * first.scaling, b2 * second.scaling
    apart = _norm(torch.cat([b1, -b2], 2), torch.cat([a1, a2], 1))
    return apart / (_norm(b1, a1) or 1.0)


def _norm(b: Tensor, a: Tensor) -> float:
    """The Frobenius norm of `B A`, from the triangular factors of B and A^T."""
    left, right = torch.linalg.qr(b, mode="r")[1], torch.linalg.qr(a.mT, mode="r")[1]
    return float(torch.linalg.matrix_norm(left @ right.mT).square().sum().sqrt())
