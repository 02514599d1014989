"""Activation checkpointing while evidence is gathered: a step then keeps one block's activations at a time."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from torch import nn

from .adapters import base_model_of
from .errors import ModelError

OWN = ("gradient_checkpointing", "_gradient_checkpointing_func", "_require_grads_hook", "_require_grads_hooks")
"""Attributes in which Transformers keeps that activations are recomputed, and its hooks on embeddings."""


def gathering(model: nn.Module, memory: str, hooks: list[Any]) -> contextlib.ExitStack:
    """What holds until the stack is closed: with `memory="low"`, activations are recomputed.

    Args:
        model: A PEFT model.
        memory: `select_memory` of the settings.
        hooks: Gets what closes the stack.

    Raises:
        ModelError: The model cannot do that by its own means.
    """
    stack, base = contextlib.ExitStack(), base_model_of(model)
    if memory == "low":
        if not getattr(base, "supports_gradient_checkpointing", False):
            raise ModelError(
                f"select_memory='low' needs gradient checkpointing, which {type(base).__name__} does not support: set "
                "select_memory='usual'."
            )
        stack.enter_context(recomputed(model))
    hooks.append(_Closing(stack))
    return stack


class _Closing:
    """Closes a stack like the handle of a hook: neither the stack nor the model in it is kept alive by it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = weakref.ref(stack)

    def remove(self) -> None:
        """Close the stack, if it is there."""
        if (stack := self._stack()) is not None:
            stack.close()


@contextlib.contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Activation checkpointing by the model's own means, unless it has none, or it is on already."""
    base: Any = base_model_of(model)
    on = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    if on or not getattr(base, "supports_gradient_checkpointing", False):
        yield
        return
    way = "activation" if hasattr(base, "activation_checkpointing_enable") else "gradient"
    before = {module: set(module._forward_hooks) for module in base.modules()}
    attributes = [(module, {name: vars(module)[name] for name in OWN if name in vars(module)}) for module in before]
    configs: dict[int, Any] = {
        id(module.config): module.config for module in base.modules() if hasattr(module, "config")
    }
    cached = [config for config in configs.values() if getattr(config, "use_cache", False)]
    for config in cached:  # or Transformers does it in each forward pass, and warns
        config.use_cache = False
    getattr(base, f"{way}_checkpointing_enable")(**{f"{way}_checkpointing_kwargs": {"use_reentrant": False}})
    added = [(module, key) for module, keys in before.items() for key in module._forward_hooks.keys() - keys]
    try:
        yield
    finally:
        getattr(base, f"{way}_checkpointing_disable")()
        for config in cached:
            config.use_cache = True
        for module, key in added:  # Transformers leaves one behind, by which backward goes on to the embeddings
            module._forward_hooks.pop(key, None)
        for module, values in attributes:
            for name in OWN:
                vars(module).pop(name, None)
            vars(module).update(values)
