"""Borrow a model: adapt it, train it, cut it, and give it back as it was."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..probe import same_random_numbers
from ..tensors import local

__all__ = ["Borrowed", "borrowed"]

SAMPLE = 64
"""About so many values of each parameter are compared. A copy of all would double the memory."""


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator["Borrowed"]:
    """Inside, do to the model what you like; afterwards it is as it was, bit for bit, also after an error.

    That is: its modules, their attributes and hooks, parameters, buffers, gradients, `requires_grad`, which modules
    train, the configs of Transformers and PEFT, and the random numbers that come next. The values of parameters are
    put back if `keep_values` was called before they changed.

    Raises:
        ModelError: Afterwards, if the values of another parameter changed.

    Example:
        ```python
        with borrowed(model) as before:
            adapted = get_peft_model(model, LoraConfig())
            before.keep_values(p for p in adapted.parameters() if p.requires_grad)
            train(adapted)
        ```
    """
    before = Borrowed(model)
    with same_random_numbers(model):
        try:
            yield before
        finally:
            before.give_back()
    before.check_frozen()


class Borrowed:
    """What a model was when it was borrowed. Its gradients are set aside at once."""

    def __init__(self, model: nn.Module) -> None:
        self._holders: list[tuple[Any, Any]] = []
        self._seen: dict[int, Any] = {}
        self._look_at(model)
        self._parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
        self._samples = [(name, p, _sample(p)) for name, p in model.named_parameters() if not p.is_meta]
        self._values: list[tuple[Tensor, Tensor]] = []
        self.keep_values(buffer for buffer in model.buffers() if not buffer.is_meta)
        for parameter, _, _ in self._parameters:
            parameter.grad = None

    def keep_values(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors, those of the model and others, so that they get their present values back."""
        self._values += [(tensor, tensor.detach().clone()) for tensor in tensors]

    def _look_at(self, thing: Any) -> None:
        """Note what modules, configs and the containers in them hold."""
        if isinstance(thing, nn.Module) or (hasattr(thing, "to_dict") and hasattr(thing, "__dict__")):
            thing = vars(thing)
        if not isinstance(thing, dict | list | set) or id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        self._holders.append((thing, list(thing.items()) if isinstance(thing, dict) else list(thing)))
        for inner in thing.values() if isinstance(thing, dict) else thing:
            self._look_at(inner)

    @torch.no_grad()
    def give_back(self) -> None:
        """Put everything back."""
        for holder, content in self._holders:
            holder.clear()
            holder.extend(content) if isinstance(holder, list) else holder.update(content)
        for tensor, value in self._values:
            tensor.copy_(value)
        for parameter, trains, gradient in self._parameters:
            parameter.requires_grad_(trains)
            parameter.grad = gradient

    def check_frozen(self) -> None:
        """Raise a `ModelError` if values changed that were not kept: RWKV rescales its weights when it trains."""
        for name, parameter, before in self._samples:
            if not torch.equal(_sample(parameter), before):
                raise ModelError(
                    f"the forward pass changed the frozen weight {name!r}, which cannot be put back: load the model "
                    "again, and run one batch in training mode before you choose."
                )


def _sample(parameter: Tensor) -> Tensor:
    """The bytes of some of its values, from all parts of it."""
    values = local(parameter.detach()).flatten()
    return values[:: max(1, values.numel() // SAMPLE)].clone().view(torch.uint8)
