"""WeightLoRA+: grow the rank of adapters, without changing what the model computes (Algorithm 2)."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import torch
from peft.tuners.lora import Embedding
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import ModelError
from ..optimizers import replace_parameter_
from .handles import LoraAdapter
from .variants import refuse


def check_growth(adapters: list[LoraAdapter], target: int | str, can_grow: bool = True) -> None:
    """Raise a `ModelError` if an adapter cannot grow, or has a rank above the target already.

    Args:
        adapters: All of the model.
        target: The rank that they would grow to, or `"budget"`.
        can_grow: Whether the engine around the model lets a parameter change its shape.
    """
    refuse(adapters, "growth")
    if not can_grow:
        raise ModelError("expand cannot grow what FSDP or DeepSpeed has sharded: set expand='none'.")
    largest = max(adapter.rank for adapter in adapters)
    if isinstance(target, int) and target < largest:
        raise ModelError(f"expand_rank={target} is below the adapters' rank of {largest}: raise it, or drop expand.")


def ranks_for_budget(adapters: list[LoraAdapter], budget: int) -> list[int]:
    """Ranks of the given adapters, all multiplied by the same factor, that together cost at most `budget` parameters.

    No rank is lowered, and none goes above what its layer can use, so some of the budget may be left.
    """
    fixed = sum(adapter.size - sum(factor.numel() for factor in adapter.factors) for adapter in adapters)
    factor = Fraction(budget - fixed, sum(adapter.size for adapter in adapters) - fixed)
    return [clip_rank(adapter, math.floor(adapter.rank * factor)) for adapter in adapters]


def next_ranks(
    adapters: list[LoraAdapter], target: int | str, start_ranks: Mapping[str, int], share: float, total: int
) -> list[int]:
    """Ranks of the survivors of a round.

    Args:
        adapters: The survivors.
        target: The rank after the last round, which each round approaches by the same ratio; or `"budget"`.
        start_ranks: Of each adapter when the run began.
        share: Of the rounds that are over.
        total: Parameters of all adapters when the run began; the bound where `target` is `"budget"`.
    """
    if isinstance(target, str):
        return ranks_for_budget(adapters, total)
    ranks = [round(start_ranks[adapter.name] ** (1 - share) * target**share) for adapter in adapters]
    return [clip_rank(adapter, rank) for adapter, rank in zip(adapters, ranks, strict=True)]


def clip_rank(adapter: LoraAdapter, rank: int) -> int:
    """The nearest rank at or below `rank` that the layer can use, but not below the present one."""
    rank = min(rank, adapter.max_rank)
    return max(adapter.rank, rank - rank % adapter.rank_unit)


def grow_(adapters: list[LoraAdapter], ranks: list[int], method: str, optimizer: Optimizer | None, seed: int) -> None:
    """Grow adapters to these ranks by `expand_`, with fresh rows drawn from one seed."""
    generator = torch.Generator().manual_seed(seed)
    for adapter, rank in zip(adapters, ranks, strict=True):
        expand_(adapter, rank, method, optimizer, generator)


@torch.no_grad()
def expand_(
    adapter: LoraAdapter, rank: int, method: str, optimizer: Optimizer | None, generator: torch.Generator
) -> None:
    """Grow the adapter to `rank`, keeping its scaling and, but for `"restart"`, the product `B A`.

    Args:
        adapter: Changed in place: new parameters take the old ones' place in the layer and in the optimizer.
        rank: The new rank; nothing happens if it is the present one.
        method: `"random"`: `A' = [A; fresh]`, `B' = [B, 0]`, moments padded with zeros. `"qr"`: with `A^T = Q R`,
            `A' = [Q^T; N^T (I - Q Q^T)]`, `B' = [B R^T, 0]`, moments reset since the basis changed. `"restart"`: fresh
            `A`, `B = 0`, DoRA's magnitude as at the start, moments reset. (For embeddings, where PEFT starts with
            `A = 0`, the roles are exchanged.)
        optimizer: Holds the parameters, or None.
        generator: A CPU generator; fresh rows are drawn as by PEFT's default initialisation.

    Raises:
        ModelError: If `rank` is below the present one, or does not divide among a convolution's groups.
    """
    if rank == adapter.rank:
        return
    if rank < adapter.rank or rank % adapter.rank_unit:
        raise ModelError(
            f"rank {adapter.rank} of adapter {adapter.name!r} cannot become {rank}: "
            f"give a multiple of {adapter.rank_unit} that is larger."
        )
    old = adapter.factors
    swap = isinstance(adapter.layer, Embedding)
    a, b = (adapter.to_blocks(i, f.to(torch.promote_types(f.dtype, torch.float32))) for i, f in enumerate(old))
    # The factor that is drawn at the start, `(blocks, r, in)`, and the one that is 0, `(blocks, out, r)`.
    first, second = (b.mT, a.mT) if swap else (a, b)
    new_rows = rank // adapter.rank_unit - (0 if method == "restart" else first.shape[1])
    fresh = _draw(adapter, (first.shape[0], new_rows, first.shape[2]), generator).to(first)
    zeros = second.new_zeros(*second.shape[:2], new_rows)
    if method == "restart":
        first, second = fresh, zeros
    elif method == "random":
        first, second = torch.cat([first, fresh], 1), torch.cat([second, zeros], 2)
    else:
        q, r = torch.linalg.qr(first.mT)
        first = torch.cat([q.mT, fresh - fresh @ q @ q.mT], 1)
        second = torch.cat([second @ r.mT, zeros], 2)
    pair = (second.mT, first.mT) if swap else (first, second)
    new = [
        nn.Parameter(adapter.from_blocks(i, blocks).to(factor.dtype).contiguous(), factor.requires_grad)
        for i, (blocks, factor) in enumerate(zip(pair, old, strict=True))
    ]
    if optimizer is not None:
        for i in range(2):
            carry = _padding(adapter, i, rank) if method == "random" else None
            replace_parameter_(optimizer, old[i], new[i], carry)
    adapter.set_factors_(new[0], new[1], rank)
    if method == "restart" and adapter.magnitude is not None:
        magnitude = nn.Parameter(adapter.weight_norm(), adapter.magnitude.requires_grad)
        if optimizer is not None:
            replace_parameter_(optimizer, adapter.magnitude, magnitude)
        adapter.layer.lora_magnitude_vector[adapter.adapter_name].weight = magnitude


def _draw(adapter: LoraAdapter, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Rows as a fresh LoRA draws them: N(0, 1) on embeddings, else Kaiming-uniform with a = sqrt 5."""
    if isinstance(adapter.layer, Embedding):
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    bound = 1 / math.sqrt(shape[2])
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") * (2 * bound) - bound


def _padding(adapter: LoraAdapter, which: int, rank: int) -> Callable[[Tensor], Tensor]:
    """Maps a moment of factor A (`which=0`) or B (`which=1`) to the new rank, with zeros for what is new."""

    def pad(moment: Tensor) -> Tensor:
        blocks = adapter.to_blocks(which, moment)
        shape = list(blocks.shape)
        shape[1 + which] = rank // adapter.rank_unit - shape[1 + which]
        return adapter.from_blocks(which, torch.cat([blocks, blocks.new_zeros(shape)], 1 + which)).contiguous()

    return pad
