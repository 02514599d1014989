"""Data loaders that are read, and then are as if nobody had read them."""

import contextlib
import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from .restoring import GENERATORS, refill, states_of_generator

PARTS = (
    *("base_dataloader", "batch_sampler", "sampler", "collate_fn", "data_collator", "dataset", "datasets"),
    *("transform", "transforms", "target_transform"),
)
"""Attributes by which a data loader and its parts hold other parts, or several of them."""

FEW = 100

NUMBERS = (int, float, bool)

STREAMS = (DataLoader, IterableDataset)


@contextlib.contextmanager
def same_batches(loader: Any) -> Iterator[None]:
    """Afterwards a data loader is as if nobody had read it: its next reader gets the batches that it would have got.

    Its parts get back their numbers (of epochs that were read, also in a dictionary or as a tensor), and `None` for
    what they have made meanwhile (workers that stay, and generators). A sampler and a stream get back the order of
    their rows. Random number generators that parts hold get back their states. An iterator goes on where the reading
    ended, but that of workers that stay (`persistent_workers=True`) where it is: others may be reading it.
    """
    parts = _parts(loader)
    before = [bring_back for part in parts for bring_back in _states(part)]
    for own in (vars(part) for part in parts if isinstance(part, DataLoader)):
        if (reader := own.get("_iterator")) is not None:  # reading would start it again
            before.append(partial(own.update, _iterator=reader))
            own["_iterator"] = None
    try:
        yield
    finally:
        for part in parts:
            if hasattr(part, "gradient_state"):  # Accelerate's, which counts as being read until its last batch
                part.end()
        for bring_back in before:
            bring_back()


def read_once(loader: Any) -> Any:
    """What a data loader reads, and nobody can read again, such as a generator; None if nothing is known to be so."""
    parts = _parts(loader)
    held = _flat(getattr(part, name, None) for part in parts for name in PARTS)
    for one in (loader, *held, *parts):
        if isinstance(one, Iterator) or (isinstance(one, IterableDataset) and iter(one) is iter(one)):
            return one
    return None


def _parts(loader: Any) -> list[Any]:
    """A data loader, and what it draws examples, their order and random numbers from."""
    found: dict[int, Any] = {}
    waiting = [loader]
    while waiting:
        part = waiting.pop()
        if part is not None and id(part) not in found and not isinstance(part, Iterator):
            found[id(part)] = part
            waiting += _flat(getattr(part, name, None) for name in PARTS)
            waiting += filter(_draws, _flat(getattr(part, "__dict__", {}).values()))
            waiting.append(getattr(part, "__self__", None))  # of a method
            if isinstance(part, partial):
                waiting += [part.func, *part.args, *part.keywords.values()]
    return list(found.values())


def _draws(one: Any) -> bool:
    """Whether an object has a generator of random numbers, such as what augments or masks examples."""
    own = getattr(one, "__dict__", None)
    return isinstance(own, dict) and any(isinstance(value, GENERATORS) for value in own.values())


def _states(part: Any) -> Iterator[Callable[[], object]]:
    """What brings a part of a data loader back to its present state."""
    own = getattr(part, "__dict__", None)
    if not isinstance(own, dict):  # a class has another kind of mapping
        return
    if numbers := _numbers(own):
        yield partial(own.update, numbers)
    if isinstance(part, IterableDataset) or _is_sampler(part):  # one may shuffle its rows in place
        arrays = _is_sampler(part)  # those of a stream may be all of its data
        for name, value in _orders(own, arrays):
            content = value.clone() if torch.is_tensor(value) else copy.copy(value)
            yield partial(_put_back, own, name, value, content)
        inner = (one for value in own.values() if type(value) is list for one in value if type(one) is list)
        yield from (partial(refill, inner_list, copy.copy(inner_list)) for inner_list in inner)
    for value in _flat(own.values()):
        if type(value) is dict and len(value) <= FEW:
            if numbers := _numbers(value):
                yield partial(value.update, numbers)
        elif torch.is_tensor(value) and value.numel() == 1:
            yield partial(value.data.copy_, value.detach().clone())
        elif isinstance(value, GENERATORS):
            yield from states_of_generator(value)


def _numbers(values: dict[Any, Any]) -> dict[Any, Any]:
    """The entries that are numbers, switches or None."""
    return {name: value for name, value in values.items() if value is None or type(value) in NUMBERS}


def _flat(values: Iterable[Any]) -> list[Any]:
    """The values, and in place of a list or tuple what it holds. A long one has examples in it, and no parts."""
    return [
        one for value in values for one in (value if type(value) in (list, tuple) and len(value) <= FEW else [value])
    ]


def _is_sampler(part: Any) -> bool:
    """Whether it gives rows or batches of them: the user's own need not be a `torch.utils.data.Sampler`."""
    if isinstance(part, Sampler):
        return True
    return hasattr(type(part), "__iter__") and not (hasattr(type(part), "__getitem__") or isinstance(part, STREAMS))


def _orders(own: dict[str, Any], arrays: bool) -> Iterator[tuple[str, Any]]:
    """The attributes that are lists or, if wished, arrays and tensors of whole numbers."""
    for name, value in own.items():
        numpys = isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.integer)
        torchs = torch.is_tensor(value) and not value.is_floating_point()
        if type(value) in (list, deque) or (arrays and (numpys or torchs)):
            yield name, value


def _put_back(own: dict[str, Any], name: str, value: Any, content: Any) -> None:
    """An attribute and its content as before; nobody can have changed an array that is read-only."""
    if isinstance(value, list | deque):
        refill(value, content)
    elif not isinstance(value, np.ndarray) or value.flags.writeable:
        value[:] = content
    own[name] = value
