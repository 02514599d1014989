"""Two forward passes, looked at: in which order adapters run, which share an input, and what autograd keeps for whom.

The second one has the highest adapter alone, and shows how far down backward goes anyway.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..adapters import LoraAdapter
from ..measure import storage_of


class Given(NamedTuple):
    """What a layer got as its input.

    Attributes:
        shape, dtype: Of the tensor.
        autocast: The dtype to which autocast cast there; None without autocast.
    """

    shape: torch.Size
    dtype: torch.dtype
    autocast: torch.dtype | None


@dataclass(frozen=True)
class Trace:
    """What a forward pass with all adapters did; `reached` is from one with the highest alone.

    Attributes:
        groups: For each adapter, the number of its group: those on one input. 0 runs last.
        inputs: For each adapter, what its layer got; None for a layer that did not run.
        saved: Bytes that autograd saves from the start of each group to the start of the next one, adapters aside.
        shared: For each group, bytes that it saves for its adapters and for nothing else, once for all of them.
        own: For each adapter, bytes that it saves for this one alone.
        reached: The lowest group that backward reaches then, because something below it trains, too; -1 if none.
    """

    groups: list[int]
    inputs: list[Given | None]
    saved: list[float]
    shared: list[float]
    own: list[float]
    reached: int = -1

    @property
    def ran(self) -> list[int]:
        """Indices of the adapters whose layers ran."""
        return [index for index, given in enumerate(self.inputs) if given is not None]


def trace(
    model: nn.Module, adapters: list[LoraAdapter], forward: Callable[[], object], used: list[bool] | None = None
) -> Trace:
    """Look at one forward pass with all adapters, and at one with the highest alone.

    Args:
        model: Trains.
        adapters: All of them, on the model.
        forward: Runs it, and returns what keeps its graph alive.
        used: For each adapter, whether the loss depends on it; None for all. Others, such as a pooler whose output is
            not used, count as layers that did not run.
    """
    looking = _Looking(model, adapters)
    with looking.hooked():
        graph = forward()
    del graph
    seen = looking.result()
    if used is not None:
        inputs = [given if there else None for given, there in zip(seen.inputs, used, strict=True)]
        seen = replace(seen, inputs=inputs)
    return replace(seen, reached=_reached(adapters, seen, forward))


def _reached(adapters: list[LoraAdapter], seen: Trace, forward: Callable[[], object]) -> int:
    """The lowest group whose input needs a gradient with the highest adapter alone; -1 if there is none."""
    found = [-1]
    high = min(seen.ran, key=lambda index: seen.groups[index], default=None)

    def entering(group: int) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any, kwargs: Any) -> None:
            if any(torch.is_tensor(value) and value.requires_grad for value in (*args, *kwargs.values())):
                found.append(group)

        return hook

    with contextlib.ExitStack() as stack:
        for adapter, group in zip(adapters, seen.groups, strict=True):
            layer: Any = adapter.layer
            stack.callback(layer.register_forward_pre_hook(entering(group), with_kwargs=True).remove)
        stack.enter_context(without(adapter for index, adapter in enumerate(adapters) if index != high))
        forward()
    return max(found)


class _Looking:
    def __init__(self, model: nn.Module, adapters: list[LoraAdapter]) -> None:
        self._adapters = adapters
        self._weights = {storage_of(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._inputs: dict[int, Tensor] = {}  # by adapter, at its first call
        self._given: dict[int, Given] = {}
        self._order: list[list[int]] = []  # groups, in the order in which they run
        self._inside: list[int] = []
        # (bytes, group that ran before, adapters) of all that is saved; the tensors stay, or places were reused
        self._saved: dict[Any, tuple[int, int, set[int | None]]] = {}

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for index, adapter in enumerate(self._adapters):
                layer: Any = adapter.layer
                stack.callback(layer.register_forward_pre_hook(self._entering(index), with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(self._leave, always_call=True).remove)
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor))
            yield

    def _leave(self, *call: Any) -> None:
        self._inside.pop()

    def _entering(self, index: int) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any, kwargs: Any) -> None:
            self._inside.append(index)
            if index in self._inputs:
                return
            given = next((value for value in (*args, *kwargs.values()) if torch.is_tensor(value)), None)
            last = self._inputs.get(self._order[-1][0]) if self._order else None
            if given is not None and given is last:
                self._order[-1].append(index)
            else:
                self._order.append([index])
            if given is not None:
                self._inputs[index] = given
                self._given[index] = Given(given.shape, given.dtype, _autocast(given.device.type))

        return hook

    def _save(self, tensor: Tensor) -> Tensor:
        place = storage_of(tensor)
        if place not in self._weights:
            bytes_, _, owners = self._saved.get(place, (tensor.untyped_storage().nbytes(), 0, set()))
            owners.add(self._inside[-1] if self._inside else None)
            self._saved[place] = bytes_, len(self._order), owners
        return tensor.detach()

    def result(self) -> Trace:
        ran = {index for group in self._order for index in group}
        order = [*([[i] for i in range(len(self._adapters)) if i not in ran]), *self._order]
        missing, count = len(order) - len(self._order), len(order)
        groups = {index: count - 1 - place for place, group in enumerate(order) for index in group}
        saved, shared = [0.0] * count, [0.0] * count
        own: defaultdict[int, float] = defaultdict(float)
        for bytes_, ran_before, owners in self._saved.values():
            if None in owners:
                saved[count - max(1, ran_before + missing)] += bytes_
                continue
            who = [index for index in owners if index is not None]
            if len(who) == 1:
                own[who[0]] += bytes_
            else:
                shared[max(groups[index] for index in who)] += bytes_
        return Trace(
            groups=[groups[index] for index in range(len(self._adapters))],
            inputs=[self._given.get(index) for index in range(len(self._adapters))],
            saved=saved,
            shared=shared,
            own=[own[index] for index in range(len(self._adapters))],
        )


@contextlib.contextmanager
def without(adapters: Iterable[LoraAdapter]) -> Iterator[None]:
    """Inside, layers compute what they compute without these adapters; other active adapters stay."""
    out = list(adapters)
    layers: list[Any] = [adapter.layer for adapter in out]
    trained = [(parameter, parameter.requires_grad) for layer in layers for parameter in layer.parameters()]
    active = [layer._active_adapter for layer in layers]
    try:
        for layer, adapter in zip(layers, out, strict=True):
            others = [name for name in layer.active_adapters if name != adapter.adapter_name and name in layer.r]
            if others:
                layer._active_adapter = others
            else:
                layer.enable_adapters(False)
        yield
    finally:
        for layer, names in zip(layers, active, strict=True):
            layer._active_adapter = names
            layer.enable_adapters(True)
        for parameter, trains in trained:
            parameter.requires_grad_(trains)


def _autocast(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
