"""What the quickstart measures: the cost of training with all adapters and with those that were kept."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from transformers import TrainerCallback

from ..adapters import find_adapters
from ..measure import optimizer_state_bytes, saved_activation_bytes, trainable_parameters

__all__ = ["CostCallback", "machine_is_busy", "time_in_turns"]

ROUNDS = 5
"""Rounds of timed steps that count; one more comes before them."""


class CostCallback(TrainerCallback):
    """Measures the cost after the first step (`at_start`) and at the end (`at_end`), and keeps the model.

    Args:
        batch: A batch to measure activations with.
    """

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self.model: nn.Module
        self.at_start: dict[str, int] = {}
        self.at_end: dict[str, int] = {}
        self._batch = batch

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.at_start:  # the optimizer has its state now, and no adapter is gone
            self.at_start = _cost_of(kwargs["model"], kwargs["optimizer"], self._batch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.model = kwargs["model"]
        self.at_end = _cost_of(self.model, kwargs["optimizer"], self._batch)


def time_in_turns(models: Sequence[nn.Module], batch: Mapping[str, Any]) -> list[list[float]]:
    """Seconds of a forward and a backward pass of each model, by round. In a round, all models take their turn.

    Args:
        models: They train, on one device. Their gradients are dropped.
        batch: What all of them read.
    """
    inputs = send_to_device(dict(batch), next(models[0].parameters()).device)
    found: list[list[float]] = []
    for _ in range(1 + ROUNDS):
        found.append([])
        for model in models:
            began = _now()
            model.train()(**inputs).loss.backward()
            found[-1].append(_now() - began)
            model.zero_grad()
    return found[1:]


def machine_is_busy() -> bool:
    """Whether clearly more processes want to run than there are CPUs.

    False with a GPU, and on systems that do not report their load.
    """
    if torch.cuda.is_available() or not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] > 1.25 * (os.cpu_count() or 1)


def _cost_of(model: nn.Module, optimizer: Any, batch: Mapping[str, Any]) -> dict[str, int]:
    """What training the model costs at this moment of a run."""
    adapters = find_adapters(model)
    return {
        "adapters": len(adapters),
        "adapter_parameters": sum(adapter.size for adapter in adapters),
        "trainable_parameters": trainable_parameters(model),
        "optimizer_state_bytes": optimizer_state_bytes(optimizer),
        "saved_activation_bytes": saved_activation_bytes(model, batch),
    }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
