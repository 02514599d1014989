"""The time of a training step: forward, backward down to the lowest adapter, the adapters, and the optimizer."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import LoraAdapter
from .anchors import between, ends, optimizer_of_copies, subsets
from .model import Costs
from .tracing import Given, Trace, without

STEPS = 7
"""Timed steps of each kind, in turns, of which the median counts. One more warms up."""
FORWARD = 1 / 3
"""The share of an adapter's time that is spent forward: one product of three."""


def price_seconds(model: nn.Module, adapters: list[LoraAdapter], loss: Callable[[], Tensor], seen: Trace) -> Costs:
    """What each part costs in seconds, with AdamW.

    An adapter's own price is measured at its layer alone, and scaled so that all of them add up to what they add to a
    step. The depth of a group is the moment at which the backward pass arrives there, less the adapters above it.

    Args:
        model, adapters, loss: See `measure`.
        seen: What forward passes showed.
    """
    device = next(model.parameters()).device

    def step_with(clock: _Arrivals) -> None:
        """Forward and backward, without the optimizer."""
        value = loss()
        clock.begin()
        value.backward()
        model.zero_grad(set_to_none=True)

    own = _alone(adapters, seen.inputs, device)
    low, high = ends(seen)
    times: dict[int | None, list[float]] = {None: [], low: [], high: []}
    arrivals: list[list[float]] = []
    for _ in range(1 + STEPS):
        for alone, off in subsets(adapters, (low, high)).items():
            clock = _Arrivals(adapters if alone is None else [], device)
            with without(off), clock:
                times[alone].append(timed(partial(step_with, clock), device))
            if alone is None:
                arrivals.append(clock.seconds())
    whole = statistics.median(times[None][1:])
    pairs = {alone: zip(found[1:], times[None][1:], strict=True) for alone, found in times.items()}
    # By ratios within each round: a slow moment of the machine is in all steps of a round.
    step = {alone: whole * statistics.median(one / other for one, other in pair) for alone, pair in pairs.items()}
    if (added := step[None] - step[low]) > 0 and (sum_of_others := sum(own) - own[low]) > 0:
        own = [price * added / sum_of_others for price in own]
    reached = [statistics.median(found) for found in zip(*arrivals[1:], strict=True)]
    profile = [0.0] * len(seen.shared)
    for group, moment in zip(seen.groups, reached, strict=True):
        profile[group] = max(profile[group], moment)
    for group, price in zip(seen.groups, own, strict=True):
        for lower in range(group + 1, len(profile)):
            profile[lower] -= (1 - FORWARD) * price
    depth = between(profile, {seen.groups[one]: step[one] - own[one] for one in (high, low)}, seen.reached)
    adapted = [parameter for adapter in adapters for parameter in adapter.parameters if parameter.requires_grad]
    ours = {id(parameter) for parameter in adapted}
    head = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
    each, rest = _optimizer(adapted, device) / len(adapters), _optimizer(head, device)
    return Costs(
        resource="step_time",
        groups=seen.groups,
        depth=[price + rest for price in depth],
        shared=[0.0] * len(depth),
        own=[price + each for price in own],
        whole=step[None] + each * len(adapters) + rest,
    )


def _alone(adapters: list[LoraAdapter], inputs: list[Given | None], device: torch.device) -> list[float]:
    """What each adapter adds to its layer. One of each kind is timed: its factors and inputs have the same shapes."""
    times: dict[Any, float] = {}
    found = []
    for adapter, given in zip(adapters, inputs, strict=True):
        kind = type(adapter.layer), tuple(parameter.shape for parameter in adapter.parameters), given
        if kind not in times:
            times[kind] = 0.0 if given is None else _added(adapter, given, device)
        found.append(times[kind])
    return found


def _added(adapter: LoraAdapter, given: Given, device: torch.device) -> float:
    """Seconds by which an adapter makes forward and backward of its layer longer, under the autocast of the model."""
    layer: Any = adapter.layer
    sample = torch.zeros(given.shape, dtype=given.dtype, device=device)

    def run() -> None:
        with torch.autocast(device.type, given.autocast, enabled=given.autocast is not None):
            found = layer(sample.detach().requires_grad_(sample.is_floating_point()))
        if found.requires_grad:
            found.backward(torch.ones_like(found))

    differences = []
    for _ in range(1 + STEPS):
        with_it = timed(run, device)
        with without([adapter]):
            differences.append(with_it - timed(run, device))
    return max(0.0, statistics.median(differences[1:]))


class _Arrivals:
    """When the backward pass arrives at the output of each adapter's layer, in seconds after its beginning."""

    def __init__(self, adapters: list[LoraAdapter], device: torch.device) -> None:
        self._adapters, self._device = adapters, device
        self._begin: Any = None
        self._moments: dict[int, list[Any]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "_Arrivals":
        for index, adapter in enumerate(self._adapters):
            layer: Any = adapter.layer
            self._handles.append(layer.register_forward_hook(self._watch(index)))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, index: int) -> Callable[..., None]:
        def note(grad: Tensor) -> None:
            self._moments.setdefault(index, []).append(self._now())

        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            if torch.is_tensor(output) and output.requires_grad:
                output.register_hook(note)

        return hook

    def begin(self) -> None:
        self._begin = self._now()

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> list[float]:
        """For each adapter; its last moment if its layer ran more than once, and 0 if it did not run."""

        def passed(moment: Any) -> float:
            seconds: float = (
                moment - self._begin if isinstance(moment, float) else self._begin.elapsed_time(moment) / 1000
            )
            return seconds

        count = range(len(self._adapters))
        return [max((passed(moment) for moment in self._moments.get(index, [])), default=0.0) for index in count]


def _optimizer(parameters: list[nn.Parameter], device: torch.device) -> float:
    """Seconds of a step of AdamW with copies of these parameters."""
    if not parameters:
        return 0.0
    optimizer = optimizer_of_copies(parameters)
    return statistics.median([timed(optimizer.step, device) for _ in range(1 + STEPS)][1:])


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, until all work on the device is done."""
    began = _now(device)
    run()
    return _now(device) - began


def _now(device: torch.device) -> float:
    """The time, after all work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
