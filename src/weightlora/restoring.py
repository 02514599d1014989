"""What a look at a model may change on it, put back afterwards. `probe.undisturbed` puts these together."""

import contextlib
import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OF_TORCH = vars(nn.Module()).keys()
"""Attributes that every module has: its parameters, hooks and so on."""

CONTAINERS = (dict, defaultdict, OrderedDict, Counter, list, deque, set)
"""Of these, the content comes back."""

GENERATORS = (random.Random, np.random.RandomState, np.random.Generator, torch.Generator)

HELD_BY_TORCH = {name for name in OF_TORCH - {"_parameters", "_buffers"} if "state_dict" not in name}
"""Where these are dictionaries, they hold the parts of a module and the hooks of its passes."""


def refill(holder: Any, content: Any) -> None:
    """Give a list, a deque, a set or a dictionary the content that it had."""
    holder.clear()
    (holder.extend if hasattr(holder, "extend") else holder.update)(content)


@contextlib.contextmanager
def same_modes(model: nn.Module) -> Iterator[None]:
    """Afterwards the modules train that trained before."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, trains in before:
            module.training = trains


@contextlib.contextmanager
def same_parameters(model: nn.Module) -> Iterator[None]:
    """Afterwards there are the same parameters in their dtype, with the values of those that have taken their place.

    PEFT's `load_adapter` makes new ones in float32 of 16-bit adapters, of which an optimizer knows nothing. That of
    PEFT 0.21.0 changes their dtype.
    """
    before = [
        (module, name, parameter, parameter.dtype)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]
    yield
    for module, name, parameter, dtype in before:
        if (found := module._parameters.get(name)) is None:
            continue
        if found is not parameter:
            parameter.data.copy_(found.data)
            module._parameters[name] = parameter
        elif parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


@contextlib.contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Afterwards there are the same buffers with the same values, such as running statistics."""
    before = [(module._buffers, copy.copy(module._buffers)) for module in model.modules()]
    values = [(buffer, buffer.clone()) for buffer in model.buffers() if _is_state(buffer)]
    try:
        yield
    finally:
        for buffers, content in before:  # a forward pass may have put another one there, or where there was none
            refill(buffers, content)
        for buffer, value in values:
            buffer.data.copy_(value)  # not seen by autograd, which may have saved it for a backward pass that is due


@contextlib.contextmanager
def no_steps_in_backward(model: nn.Module) -> Iterator[None]:
    """Inside, no hook runs when a gradient of the model is complete, such as one that steps an optimizer with it.

    DDP, FSDP and DeepSpeed do not need theirs: the first two have other hooks, and the last is asked for gradients.
    """
    found: list[Any] = [parameter._post_accumulate_grad_hooks for parameter in model.parameters()]
    before = [(hooks, copy.copy(hooks)) for hooks in found if hooks]
    for hooks, _ in before:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, content in before:
            refill(hooks, content)


@contextlib.contextmanager
def same_fields(owners: Iterable[Any]) -> Iterator[None]:
    """Afterwards objects have the attributes that they had, and no others; modules their parts and hooks, too.

    Such as the state of a recurrence, a generator of random numbers, the losses and metrics that Trainers gather,
    BigBird's attention, which a short batch replaces by another one, or the hooks by which Transformers captures
    hidden states, with its note that they are there. Parameters, which engines exchange, torch's other attributes, and
    hooks of `state_dict()`, which FSDP2 adds once, in its first pass, are left alone. A backward pass has to be over:
    tensors are restored in place.
    """
    before = [bring_back for owner in owners for bring_back in _fields_of(owner)]
    try:
        yield
    finally:
        for bring_back in before:
            bring_back()


def _fields_of(owner: Any) -> Iterator[Callable[[], object]]:
    for name, value in vars(owner).items():
        if name in HELD_BY_TORCH and isinstance(value, dict):
            yield partial(refill, value, copy.copy(value))
    own = {name: value for name, value in vars(owner).items() if name not in OF_TORCH}
    for container in _containers(own, set()):
        yield partial(refill, container, copy.copy(container))
    for value in own.values():
        if torch.is_tensor(value) and _is_state(value) and not value.requires_grad:
            yield partial(_reset, value, value.clone())
        elif isinstance(value, GENERATORS):
            yield from states_of_generator(value)
    yield partial(_put_back, vars(owner), own)


def states_of_generator(one: Any) -> Iterator[Callable[[], object]]:
    """What brings a generator of random numbers back to its present state."""
    if isinstance(one, random.Random):
        with contextlib.suppress(NotImplementedError):  # numbers of the system have no state
            yield partial(one.setstate, one.getstate())
    elif isinstance(one, np.random.Generator):
        yield partial(setattr, one.bit_generator, "state", one.bit_generator.state)
    else:
        yield partial(one.set_state, one.get_state())


def _containers(holder: dict[Any, Any], seen: set[int]) -> Iterator[Any]:
    """The lists, deques, sets and dictionaries in a dictionary, and those in its dictionaries."""
    for value in holder.values():
        if type(value) in CONTAINERS and id(value) not in seen:
            seen.add(id(value))
            yield value
            if isinstance(value, dict):
                yield from _containers(value, seen)


def _reset(tensor: Tensor, value: Tensor) -> None:
    if not torch.equal(tensor, value):
        tensor.copy_(value)


def _put_back(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name in attributes.keys() - before.keys() - OF_TORCH:
        del attributes[name]
    attributes.update(before)


def _is_state(buffer: Tensor) -> bool:
    """Whether a forward pass may change it. Frozen weights that are quantized are integers, and too large to copy."""
    is_number = buffer.is_floating_point() and buffer.element_size() > 1
    return is_number or buffer.dtype in (torch.int64, torch.bool) or buffer.numel() == 1


@contextlib.contextmanager
def same_random_numbers(model: nn.Module) -> Iterator[None]:
    """Afterwards Python, NumPy and torch, on the CPU and where the model is, draw as if nothing had been drawn."""
    numbers = random.getstate(), np.random.get_state()
    devices = {p.device for p in model.parameters() if p.device.type in ("cuda", "mps", "xpu")}
    try:
        with torch.random.fork_rng(devices, device_type=next((one.type for one in devices), "cuda")):
            yield
    finally:
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])
