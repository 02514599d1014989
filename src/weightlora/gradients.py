"""What the gradients of fresh adapters say of their modules, for the A that they have and for other draws of it.

While `B = 0`, `dL/dB = s G A^T` with the gradient G of the module's weight, so each row of A is a random projection of
G. In decoders, G has nearly a low rank and few inputs dominate it: the eight rows of one A then say as much about
themselves as about G. Nothing depends on A yet, so further draws cost one small product in each pass.

A draw is A, shifted along its inputs, and with random signs of them: its entries are as independent as those of A,
with the same distribution. The shift makes draws differ where few inputs dominate, and the signs where inputs are
alike, as after a ReLU. All processes have the same draws.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import LoraAdapter
from .tensors import gradient_of, local, shards, to_vector

Average = Callable[[Tensor], Tensor]
"""The mean of a tensor over the processes."""

CLOSE = 0.05
"""By how much of it the norm of a gradient may differ between two ways to compute it, in bfloat16."""

PLAIN = ("", "ALoraLinear", "DoraLinear")
"""Variants that give B what A gives, as it is."""


def draws_for(adapter: LoraAdapter, rows: int) -> int:
    """How many draws of A have so many rows together, or as many as A has inputs, if these are fewer.

    It is 1 where A was not drawn at random, or the layer does not run A and B as linear modules.
    """
    pair = _linear_pair(adapter)
    return max(1, min(rows, pair[0].in_features) // adapter.rank) if pair else 1


def signs_for(draws: int, inputs: int) -> Tensor:
    """The signs of all draws, 1 or -1: shape `(draws, 1, inputs)`. They never change, and the first draw is A."""
    signs = torch.randint(2, (draws, 1, inputs), generator=torch.Generator().manual_seed(0), device="cpu") * 2 - 1
    signs[0] = 1
    return signs


def draws_of(a: Tensor, signs: Tensor) -> Tensor:
    """All draws of an A of shape `(r, in)`, one after the other: shape `(draws * r, in)`."""
    step = a.shape[1] // len(signs)
    shifted = torch.stack([a.roll(step * draw, dims=1) for draw in range(len(signs))])
    return (shifted * signs.to(shifted)).flatten(0, 1)


@contextlib.contextmanager
def projected(adapters: list[LoraAdapter], rows: int) -> Iterator[dict[LoraAdapter, Tensor]]:
    """Inside, backward passes add up the gradients that B would have with other draws of A.

    Args:
        adapters: Of which B is 0.
        rows: Rows of all draws of an A together.

    Yields:
        By adapter, the sums `s G A^T` of this process, a draw after the other: shape `(out, draws * r)`. Adapters with
        one draw are left out.
    """
    with contextlib.ExitStack() as hooks:
        sums = {}
        for adapter in adapters:
            pair, draws = _linear_pair(adapter), draws_for(adapter, rows)
            if pair and draws > 1:
                shape = pair[1].out_features, draws * adapter.rank
                sums[adapter] = torch.zeros(shape, dtype=torch.float32, device=adapter.factors[1].device)
                for hook in _watch(*pair, sums[adapter], draws):
                    hooks.callback(hook.remove)
        yield sums


def l1_norms(adapters: list[LoraAdapter], sums: dict[LoraAdapter, Tensor], average: Average) -> Tensor:
    """L1 norms of the sums of gradients, shape `(n,)`, float64; the mean over draws, where A was drawn several times.

    Args:
        adapters: The n adapters, whose gradients are there.
        sums: From `projected`.
        average: See `Average`.
    """
    norms = average(to_vector([_l1_norm(adapter, average) for adapter in adapters]))
    for index, adapter in enumerate(adapters):
        if (total := sums.get(adapter)) is not None:
            draws = average(total).abs().view(len(total), -1, adapter.rank).sum(dim=(0, 2))
            # The first draw is A. Where that is not what backward gave B, hooks do not see all of it.
            if abs(draws[0] - norms[index]) <= CLOSE * norms[index]:
                norms[index] = draws.mean()
    return norms


def _l1_norm(adapter: LoraAdapter, average: Average) -> Tensor:
    """Of sharded factors (FSDP), this process's part times the number of parts: their mean is the whole.

    Others may have the gradient of this process's batches alone, where no DDP has averaged it.
    """
    total = torch.zeros((), dtype=torch.float32, device=adapter.factors[1].device)
    for factor in adapter.factors:
        gradient = gradient_of(factor)
        if shards(factor) == 1 and factor.requires_grad:
            here = torch.zeros_like(local(factor)) if gradient is None else local(gradient)
            total += average(here.detach().float().clone()).abs().sum()
        elif gradient is not None:
            total += shards(factor) * local(gradient).float().abs().sum()
    return total


def _linear_pair(adapter: LoraAdapter) -> tuple[nn.Linear, nn.Linear] | None:
    """The modules of A and B, out of FSDP1's wrappers; None if other draws cannot run beside them.

    That is: A was not drawn, one is not linear or does not run as a module, or something comes between them.
    """
    if not adapter.drawn or adapter.kind == "parameter" or adapter.variant not in PLAIN:
        return None
    holders = [adapter.layer.lora_A, adapter.layer.lora_B]
    held = [holder[adapter.adapter_name] for holder in holders if adapter.adapter_name in holder]
    linear = [module for one in held for module in one.modules() if isinstance(module, nn.Linear)]
    return (linear[0], linear[1]) if len(linear) == 2 else None


def _watch(a: nn.Linear, b: nn.Linear, total: Tensor, draws: int) -> Iterator[Any]:
    """Hooks that add `g^T x A^T` to a sum, for the inputs x of A and the gradients g of what B gives for them."""
    inner: dict[torch.device, Tensor] = {}  # DataParallel runs a copy of the module on each device
    signs = signs_for(draws, a.in_features)

    @torch.no_grad()
    def project(module: nn.Linear, inputs: tuple[Tensor]) -> None:
        drawn = draws_of(module.weight, signs)
        inner[drawn.device] = nn.functional.linear(inputs[0].to(drawn.device), drawn)

    def follow(module: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        found = inner.pop(output.device)
        if output.requires_grad:  # not in the first of the two passes of reentrant checkpointing
            output.register_hook(partial(add, found))

    @torch.no_grad()
    def add(found: Tensor, gradient: Tensor) -> None:
        g, projection = (one.reshape(-1, one.shape[-1]) for one in (gradient, found.to(gradient.dtype)))
        product = g.T @ projection
        total.add_(product.to(total))

    yield a.register_forward_pre_hook(project)
    yield b.register_forward_hook(follow, prepend=True)  # before hooks of others, which may change what B gives
