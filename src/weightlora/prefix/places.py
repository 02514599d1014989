"""What stands in a model's list of blocks while one forward pass runs."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError

__all__ = ["entering", "passed_over", "without_dropout"]

Swap = Callable[[Tensor], Tensor]


class _Place(nn.Module):
    """Stands for a block, and has its attributes: some models ask their blocks for the kind of their attention."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


class _Passed(_Place):
    """Hands on the hidden states that it gets, in the form in which the block returns its own."""

    def __init__(self, block: nn.Module, others: int | None) -> None:
        super().__init__(block)
        self.others = others

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if self.others is None else (hidden, *[None] * self.others)


class _Entry(_Place):
    """Runs the block on other hidden states than it gets."""

    def __init__(self, block: nn.Module, swap: Swap) -> None:
        super().__init__(block)
        self.swap = swap

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if args:
            return self.block(self.swap(args[0]), *args[1:], **kwargs)
        return self.block(**(kwargs | {"hidden_states": self.swap(kwargs["hidden_states"])}))


@contextlib.contextmanager
def entering(blocks: nn.ModuleList, first: int, swap: Swap) -> Iterator[list[int | None]]:
    """Give block `first` what `swap` makes of its hidden states, while the blocks below run as usual.

    Yields a list. It gets what the block below returns besides hidden states: a number of things, or None for none.
    """
    form: list[int | None] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, tuple):
            form.append(None)
        elif any(one is not None for one in output[1:]):
            raise ModelError(
                f"{type(blocks[first]).__name__} returns more than hidden states: leave the cache of the prefix out."
            )
        else:
            form.append(len(output) - 1)

    hook = blocks[first - 1].register_forward_hook(note)
    try:
        with _replaced(blocks, {first: _Entry(blocks[first], swap)}):
            yield form
    finally:
        hook.remove()


@contextlib.contextmanager
def passed_over(blocks: nn.ModuleList, first: int, form: int | None, swap: Swap) -> Iterator[None]:
    """Give block `first` what `swap` makes of its hidden states, and do not run the blocks below.

    Args:
        blocks: The model's blocks.
        first: The lowest one that runs.
        form: What a block returns besides hidden states, from `entering`.
        swap: As for `entering`.
    """
    places: dict[int, nn.Module] = {place: _Passed(blocks[place], form) for place in range(first)}
    with _replaced(blocks, places | {first: _Entry(blocks[first], swap)}):
        yield


@contextlib.contextmanager
def without_dropout(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode for these parts of a model, and for nothing else."""
    training = [module for part in parts for module in part.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _replaced(blocks: nn.ModuleList, places: dict[int, nn.Module]) -> Iterator[None]:
    real = {place: blocks[place] for place in places}
    try:
        for place, module in places.items():
            blocks[place] = module
        yield
    finally:
        for place, module in real.items():
            blocks[place] = module
