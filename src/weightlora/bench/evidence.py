"""What a run of LoRA on all modules tells about its adapters: the raw material of every rule that could choose."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..adapters import LoraAdapter, find_adapters

DIGITS = 5
SUMS = ("credit", "credit_squared", "gate", "gate_squared", "gradient")


class EvidenceCallback(TrainerCallback):
    """Records evidence about each adapter at chosen steps, and changes nothing.

    `records` maps a step T to lists with one number an adapter, in the model's order:

    * `credit`, `credit_squared`: sum over steps 1 to T of the update credit of a step, and of its square.
    * `gate`, `gate_squared`: the same of `-<dL/dB, B>`, the decrease of the loss along a gate that opens.
    * `gradient`: sum of the Frobenius norm of dL/dB.
    * `update`: `s ||B A||_F` at T.
    * `leave_one_out`: the rise of the loss of one training batch, without dropout, when the adapter alone is left out.

    Args:
        steps: The T to record at.
        batch: The batch of `leave_one_out`; without it, that list is missing.
    """

    def __init__(self, steps: Sequence[int], batch: Callable[[], dict[str, Tensor]] | None = None) -> None:
        self.records: dict[int, dict[str, list[float]]] = {}
        self._steps = set(steps)
        self._batch = batch

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._adapters = find_adapters(kwargs["model"])
        self._sums = {name: torch.zeros(len(self._adapters), dtype=torch.float64) for name in SUMS}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._before = [[factor.detach().clone() for factor in adapter.factors] for adapter in self._adapters]

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for index, (adapter, before) in enumerate(zip(self._adapters, self._before, strict=True)):
            gradients = [_gradient(factor) for factor in adapter.factors]
            moves = zip(gradients, adapter.factors, before, strict=True)
            credit = -sum(float((grad * (now.detach() - old)).sum()) for grad, now, old in moves)
            gate = -float((gradients[1] * before[1]).sum())
            step = (credit, credit**2, gate, gate**2, float(gradients[1].norm()))
            for name, value in zip(SUMS, step, strict=True):
                self._sums[name][index] += value

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step not in self._steps:
            return
        record = {name: values.tolist() for name, values in self._sums.items()}
        record["update"] = [_update_norm(adapter) for adapter in self._adapters]
        if self._batch is not None:
            record["leave_one_out"] = _leave_one_out(kwargs["model"], self._adapters, self._batch())
        self.records[state.global_step] = {
            name: [float(f"{value:.{DIGITS}g}") for value in values] for name, values in record.items()
        }


def _gradient(factor: Tensor) -> Tensor:
    return torch.zeros_like(factor) if factor.grad is None else factor.grad.detach()


@torch.no_grad()
def _update_norm(adapter: LoraAdapter) -> float:
    a, b = (factor.flatten(1) for factor in adapter.factors)
    return adapter.scaling * float((b @ a).norm())


@torch.no_grad()
def _leave_one_out(model: PeftModel, adapters: Sequence[LoraAdapter], batch: dict[str, Tensor]) -> list[float]:
    model.eval()
    whole = float(model(**batch).loss)
    rises = []
    for adapter in adapters:
        factor = adapter.factors[1]
        kept = factor.detach().clone()
        factor.zero_()
        rises.append(float(model(**batch).loss) - whole)
        factor.copy_(kept)
    model.train()
    return rises
