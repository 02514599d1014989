"""All that a model is, in a form that can be compared: its objects, their content, and the random numbers."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def snapshot(model: nn.Module) -> dict[str, Any]:
    """What a model is at this moment: path -> value. Objects are there by identity, tensors bit by bit."""
    found = {
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
        "state_dict": list(model.state_dict()),
    }
    for name, module in model.named_modules():
        found |= dict(_content(f"{name}!", vars(module), [])) | {name: (id(module), type(module))}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        grad = None if parameter.grad is None else (id(parameter.grad), _bits(parameter.grad))
        found[f"{name}?"] = (id(parameter), parameter.requires_grad, _bits(parameter), grad)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        found[f"{name}?"] = (id(buffer), _bits(buffer))
    return found


def changes(model: nn.Module, before: dict[str, Any]) -> list[str]:
    """Where a model differs from an earlier snapshot."""
    now = snapshot(model)
    return sorted(path for path in now.keys() | before.keys() if now.get(path, "-") != before.get(path, "-"))


def _bits(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _content(path: str, thing: Any, above: list[Any]) -> Iterator[tuple[str, Any]]:
    """What is in a container or a config, and which object it is; modules have paths of their own."""
    if any(thing is one for one in above):
        return
    yield path, thing if isinstance(thing, str | int | float | bool | None) else (type(thing), id(thing))
    above = [*above, thing]
    if hasattr(thing, "to_dict") and not isinstance(thing, nn.Module):
        yield from _content(f"{path}.", vars(thing), above)
    elif isinstance(thing, dict):
        yield f"{path} order", list(thing)
        for key, value in thing.items():
            yield from _content(f"{path}{key}/", value, above)
    elif isinstance(thing, set):
        yield f"{path} entries", sorted(map(repr, thing))
    elif isinstance(thing, list | tuple):
        for place, value in enumerate(thing):
            yield from _content(f"{path}{place}/", value, above)
