"""Evidence about each adapter, recorded while LoRA trains on all modules: what every rule chooses by."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weightlora.adapters import LoraAdapter, find_adapters

DIGITS = 5
SUMS = ("credit", "credit_squared", "next_credit", "next_credit_squared", "gate", "gate_squared", "gradient")


class EvidenceCallback(TrainerCallback):
    """Records evidence about each adapter at given steps, without any effect on the training.

    `records` maps a step T to lists with one number per adapter, in the order of the model:

    * `credit`, `credit_squared`: sum over steps 1 to T of the update credit of a step, and of its square.
    * `next_credit`, `next_credit_squared`: the same with the gradient of the next batch, which the step has not seen.
    * `gate`, `gate_squared`: the same of `-<dL/dB, B>`, the decrease of the loss along a gate that opens.
    * `gradient`: sum of the Frobenius norm of dL/dB.
    * `update`: `s ||B A||_F` at T.
    * `leave_one_out`: increase of the loss of one training batch, without dropout, if this adapter is left out.

    Args:
        steps: Steps T at which to record.
        batch: Returns the batch for `leave_one_out`.
        leave_out_at: The only step with `leave_one_out`, which costs one forward pass per adapter. None for no step.
    """

    def __init__(
        self, steps: Sequence[int], batch: Callable[[], dict[str, Tensor]], leave_out_at: int | None = None
    ) -> None:
        self.records: dict[int, dict[str, list[float]]] = {}
        self._steps = set(steps)
        self._batch, self._leave_out_at = batch, leave_out_at

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._adapters = find_adapters(kwargs["model"])
        self._sums = {name: torch.zeros(len(self._adapters), dtype=torch.float64) for name in SUMS}
        self._before = self._copy()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        before, self._before = self._before, self._copy()
        for index, (adapter, old, new) in enumerate(zip(self._adapters, before, self._before, strict=True)):
            credit = _credit([_gradient(factor) for factor in adapter.factors], old, new)
            self._sums["next_credit"][index] += credit
            self._sums["next_credit_squared"][index] += credit**2

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for index, (adapter, before) in enumerate(zip(self._adapters, self._before, strict=True)):
            gradients = [_gradient(factor) for factor in adapter.factors]
            credit = _credit(gradients, before, [factor.detach() for factor in adapter.factors])
            gate = -float((gradients[1] * before[1]).sum())
            step = {"credit": credit, "gate": gate, "gradient": float(gradients[1].norm())}
            step |= {"credit_squared": credit**2, "gate_squared": gate**2}
            for name, value in step.items():
                self._sums[name][index] += value

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        leave_out = state.global_step == self._leave_out_at
        if state.global_step not in self._steps and not leave_out:
            return
        record = {name: values.tolist() for name, values in self._sums.items()}
        record["update"] = [_update_norm(adapter) for adapter in self._adapters]
        if leave_out:
            record["leave_one_out"] = _leave_one_out(kwargs["model"], self._adapters, self._batch())
        self.records[state.global_step] = {
            name: [float(f"{value:.{DIGITS}g}") for value in values] for name, values in record.items()
        }

    def _copy(self) -> list[list[Tensor]]:
        return [[factor.detach().clone() for factor in adapter.factors] for adapter in self._adapters]


def _credit(gradients: Sequence[Tensor], old: Sequence[Tensor], new: Sequence[Tensor]) -> float:
    moves = zip(gradients, old, new, strict=True)
    return -sum(float((gradient * (after - before)).sum()) for gradient, before, after in moves)


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
