"""What stands in a model's list of blocks while one forward pass runs."""

import contextlib
import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

BARE = -1
"""The form of a block that returns its hidden states alone."""

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

    def __init__(self, block: nn.Module, form: int) -> None:
        super().__init__(block)
        self.form = form

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if self.form == BARE else (hidden, *[None] * self.form)


class _Entry(_Place):
    """Runs the block on other hidden states than it gets."""

    def __init__(self, block: nn.Module, swap: Swap) -> None:
        super().__init__(block)
        self.swap = swap

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if args:
            return self.block(self.swap(args[0]), *args[1:], **kwargs)
        return self.block(**(kwargs | {"hidden_states": self.swap(kwargs["hidden_states"])}))


class Attached:
    """Stands for a module's `forward`. A copy of the module gets its own class's one back."""

    def __init__(self, module: nn.Module, run: Callable[..., Any]) -> None:
        functools.update_wrapper(self, module.forward)
        self._module, self._run = module, run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo[id(self._module)]
        return types.MethodType(type(copied).forward, copied)

    def __reduce__(self) -> Any:
        return getattr, (self._module, "forward")  # of its class: it is loaded before its attributes


@contextlib.contextmanager
def entering(blocks: nn.ModuleList, first: int, swap: Swap) -> Iterator[list[int]]:
    """Give block `first` what `swap` makes of its hidden states, while the blocks below run as usual.

    Yields a list that gets the form in which the block below returns its hidden states: `BARE`, or the number of
    Nones that follow them in a tuple. It stays empty if there is more in the tuple.
    """
    form: list[int] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            form.append(BARE)
        elif isinstance(output, tuple) and all(one is None for one in output[1:]):
            form.append(len(output) - 1)

    hook = blocks[first - 1].register_forward_hook(note)
    try:
        with _replaced(blocks, {first: _Entry(blocks[first], swap)}):
            yield form
    finally:
        hook.remove()


@contextlib.contextmanager
def passed_over(blocks: nn.ModuleList, first: int, form: int, swap: Swap) -> Iterator[None]:
    """Give block `first` what `swap` makes of its hidden states, and do not run the blocks below.

    Args:
        blocks: The model's blocks.
        first: The lowest one that runs.
        form: In which a block returns hidden states, from `entering`.
        swap: As for `entering`.
    """
    places: dict[int, nn.Module] = {place: _Passed(blocks[place], form) for place in range(first)}
    with _replaced(blocks, places | {first: _Entry(blocks[first], swap)}):
        yield


@contextlib.contextmanager
def without_dropout(modules: Iterable[nn.Module], until: nn.Module) -> Iterator[None]:
    """Evaluation mode for these modules, and for nothing else, until another one is called."""
    training = [module for module in modules if module.training]

    def restore(*_: Any) -> None:
        for module in training:
            module.training = True

    for module in training:
        module.training = False
    hook = until.register_forward_pre_hook(restore)
    try:
        yield
    finally:
        hook.remove()
        restore()


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
