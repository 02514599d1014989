"""All that a model is, in a form that can be compared: its objects, their content, and the random numbers."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def snapshot(model: nn.Module) -> dict[str, Any]:
    """What a model is at this moment. Objects are compared by identity, tensors bit by bit."""
    return {
        "modules": {name: (id(module), type(module), _holds(module)) for name, module in model.named_modules()},
        "parameters": {
            name: (id(p), p.requires_grad, _bits(p), None if p.grad is None else (id(p.grad), _bits(p.grad)))
            for name, p in model.named_parameters(remove_duplicate=False)
        },
        "buffers": {name: (id(b), _bits(b)) for name, b in model.named_buffers(remove_duplicate=False)},
        "state": list(model.state_dict()),
        "numbers": [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()],
    }


def _bits(tensor: Tensor) -> tuple[Any, ...]:
    data = tensor.detach().contiguous().view(-1)
    return tensor.dtype, tuple(tensor.shape), data.view(torch.uint8).numpy().tobytes()


def _holds(thing: Any, depth: int = 0) -> Any:
    """The attributes of modules and configs, and the entries of containers."""
    if depth < 5 and ((isinstance(thing, nn.Module) and not depth) or hasattr(thing, "to_dict")):
        return id(thing), _holds(vars(thing), depth + 1)
    if isinstance(thing, dict):
        return [(key, _holds(value, depth + 1)) for key, value in thing.items()]
    if isinstance(thing, list | tuple | set):
        return type(thing), [_holds(value, depth + 1) for value in thing]
    return thing if isinstance(thing, str | int | float | bool | None) else (type(thing), id(thing))
