"""Data loaders that are read, and then are as if nobody had read them."""

import contextlib
import copy
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

__all__ = ["same_batches"]

PARTS = (
    *("base_dataloader", "batch_sampler", "sampler", "collate_fn", "data_collator", "dataset", "datasets"),
    *("transform", "transforms", "target_transform"),
)
"""Attributes by which a data loader and its parts hold other parts, or several of them."""

FEW = 100


@contextlib.contextmanager
def same_batches(loader: Any) -> Iterator[None]:
    """Afterwards a data loader is as if nobody had read it: its next reader gets the batches that it would have got.

    Its parts get back the states of their random number generators, their numbers (of epochs that were read, also in a
    dictionary or as a tensor), and `None` for what they have made meanwhile (workers that stay, and generators). A
    sampler gets back the order of its rows. An iterator goes on where the reading ended.
    """
    before = [bring_back for part in _parts(loader) for bring_back in _states(part)]
    try:
        yield
    finally:
        if hasattr(loader, "gradient_state"):  # Accelerate's, which counts as being read until its last batch
            loader.end()
        for bring_back in before:
            bring_back()


def _parts(loader: Any) -> list[Any]:
    """A data loader, and what it draws examples, their order and random numbers from."""
    found: dict[int, Any] = {}
    waiting = [loader]
    while waiting:
        part = waiting.pop()
        if part is not None and id(part) not in found and not isinstance(part, Iterator):
            found[id(part)] = part
            waiting += _flat(getattr(part, name, None) for name in PARTS)
            waiting.append(getattr(part, "__self__", None))  # of a method
            if isinstance(part, partial):
                waiting += [part.func, *part.args, *part.keywords.values()]
    return list(found.values())


def _states(part: Any) -> Iterator[Callable[[], object]]:
    """What brings a part of a data loader back to its present state."""
    own = getattr(part, "__dict__", None)
    if not isinstance(own, dict):  # a class has another kind of mapping
        return
    numbers = {name: value for name, value in own.items() if value is None or type(value) in (int, float)}
    if numbers:
        yield partial(own.update, numbers)
    if isinstance(part, Sampler):  # one may shuffle its list of rows in place
        yield from (partial(_put_back, own, name, value, copy.copy(value)) for name, value in _orders(own))
    for value in _flat(own.values()):
        if type(value) is dict and len(value) <= FEW:
            if numbers := {key: one for key, one in value.items() if one is None or type(one) in (int, float)}:
                yield partial(value.update, numbers)
        elif torch.is_tensor(value) and value.numel() == 1:
            yield partial(value.data.copy_, value.detach().clone())
        elif isinstance(value, torch.Generator):
            yield partial(value.set_state, value.get_state())
        elif isinstance(value, random.Random):
            yield partial(value.setstate, value.getstate())
        elif isinstance(value, np.random.RandomState):
            yield partial(value.set_state, value.get_state())
        elif isinstance(value, np.random.Generator):
            yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)


def _flat(values: Iterable[Any]) -> list[Any]:
    """The values, and in place of a list or tuple what it holds. A long one has examples in it, and no parts."""
    return [
        one for value in values for one in (value if type(value) in (list, tuple) and len(value) <= FEW else [value])
    ]


def _orders(own: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The attributes that are lists or arrays of whole numbers."""
    for name, value in own.items():
        listed = type(value) is list and all(type(one) is int for one in value)
        if listed or (isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.integer)):
            yield name, value


def _put_back(own: dict[str, Any], name: str, value: Any, content: Any) -> None:
    """An attribute and its content as before; nobody can have changed an array that is read-only."""
    if type(value) is list or value.flags.writeable:
        value[:] = content
    own[name] = value
