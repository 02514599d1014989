"""Borrow a model: adapt it, train it, cut it, and give it back as it was."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..restoring import no_steps_in_backward, refill, same_random_numbers
from ..tensors import unchanged_weights


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator["Borrowed"]:
    """Inside, do to the model what you like; afterwards it is as it was, bit for bit, also after an error.

    That is: its modules, their attributes and hooks, parameters, buffers, gradients, `requires_grad`, which modules
    train, the configs of Transformers and PEFT, and the random numbers that come next. The values of parameters are
    put back if `keep_values` was called before they changed. Hooks of the model that step an optimizer in the backward
    pass do not run.

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
    with unchanged_weights(model), no_steps_in_backward(model), same_random_numbers(model):
        try:
            yield before
        finally:
            before.give_back()


class Borrowed:
    """What a model was when it was borrowed. Its gradients are set aside at once."""

    def __init__(self, model: nn.Module) -> None:
        self._holders: list[tuple[Any, Any]] = []
        self._seen: dict[int, Any] = {}
        self._look_at(model)
        self._parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
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
            refill(holder, content)
        for tensor, value in self._values:
            tensor.copy_(value)
        for parameter, trains, gradient in self._parameters:
            parameter.requires_grad_(trains)
            parameter.grad = gradient
