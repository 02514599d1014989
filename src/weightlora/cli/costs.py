"""What the quickstart measures: the cost of training before and after the selection, and the time of each step."""

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from ..adapters import find_adapters
from ..measure import optimizer_state_bytes, saved_activation_bytes, trainable_parameters

__all__ = ["Cost", "CostCallback", "machine_is_busy"]


@dataclass
class Cost:
    """What a model costs at one moment of a run, and the seconds of the steps around it."""

    adapters: int
    adapter_parameters: int
    trainable_parameters: int
    optimizer_state_bytes: int
    saved_activation_bytes: int
    step_seconds: list[float] = field(default_factory=list)

    @property
    def median_step_seconds(self) -> float:
        return statistics.median(self.step_seconds)


class CostCallback(TrainerCallback):
    """Measures the cost after the first step and at the end, and the seconds of each optimizer step.

    A step is forward, backward, update and selection. The callback must come after the `WeightLoraCallback`, so that
    its time contains the selection.

    Args:
        batch: A batch to measure activations with.
        select_steps: Steps before adapters are removed.
    """

    def __init__(self, batch: Mapping[str, Any], select_steps: int = 0) -> None:
        self.busy = False
        self._batch, self._select_steps = batch, select_steps
        self._seconds: list[float] = []
        self._costs: list[Cost] = []

    @property
    def has_run(self) -> bool:
        """Whether a training has begun with it."""
        return bool(self._costs)

    @property
    def at_start(self) -> Cost:
        """The cost before adapters were removed. The first step does not count in its time: it warms up."""
        self._costs[0].step_seconds = self._seconds[1 : self._select_steps]
        return self._costs[0]

    @property
    def at_end(self) -> Cost:
        """The cost of what is left at the end, and the steps after the selection."""
        self._costs[1].step_seconds = self._seconds[max(1, self._select_steps) :]
        return self._costs[1]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = _now()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._costs:  # the optimizer has its state now, and no adapter is gone
            self._costs.append(_cost_of(kwargs["model"], kwargs["optimizer"], self._batch))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seconds.append(_now() - self._start)
        self.busy |= machine_is_busy()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._costs.append(_cost_of(kwargs["model"], kwargs["optimizer"], self._batch))


def machine_is_busy() -> bool:
    """Whether clearly more processes want to run than there are CPUs.

    False with a GPU, and on systems that do not report their load.
    """
    if torch.cuda.is_available() or not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] > 1.25 * (os.cpu_count() or 1)


def _cost_of(model: torch.nn.Module, optimizer: Any, batch: Mapping[str, Any]) -> Cost:
    adapters = find_adapters(model)
    return Cost(
        adapters=len(adapters),
        adapter_parameters=sum(adapter.size for adapter in adapters),
        trainable_parameters=trainable_parameters(model),
        optimizer_state_bytes=optimizer_state_bytes(optimizer),
        saved_activation_bytes=saved_activation_bytes(model, batch),
    )


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
