"""Variants of this package's default method, to see what each of its parts contributes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weightlora.adapters import LoraAdapter, find_adapters
from weightlora.rules import RULES, Best, Rule, Settings
from weightlora.train.methods import CONFIG_OPTIONS, Method, Prepared, Setting, weightlora

from .scores import relative_to_block


class GradientNorm(Rule):
    """Ranks adapters by the sum of the norms of dL/dB over the steps."""

    name = "gradient-norm"
    score_label = "gradient norm"
    least_steps = 1
    shares_parameters = True

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        super().__init__(adapters, optimizer, settings)
        self._adapters, self._total = adapters, self.score.clone()

    def take(self, grad_scale: float) -> Tensor:
        """The norms of this step, shape `(n,)`."""
        gradients = [adapter.factors[1].grad for adapter in self._adapters]
        return torch.tensor([0.0 if g is None else float(g.norm()) / grad_scale for g in gradients]).double()

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        self.score = self._total = self._total + evidence


class GradientNormPerBlock(GradientNorm):
    """The same, relative to the mean of the block that an adapter is in."""

    name = "gradient-norm-per-block"

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        super().update(evidence, step, best)
        relative = relative_to_block(self._total.numpy(), [adapter.name for adapter in self._adapters])
        self.score = torch.as_tensor(relative, dtype=torch.float64)


RULES |= {rule.name: rule for rule in (GradientNorm, GradientNormPerBlock)}


def by_gradient(setting: Setting) -> Prepared:
    """The default, but adapters are ranked by the norm of their gradient."""
    options = dict(setting.options)
    rule = GradientNormPerBlock if options.pop("per_block", False) else GradientNorm
    return weightlora(replace(setting, options={**options, "selection": rule.name}))


class FasterCallback(TrainerCallback):
    """Multiplies the learning rate by `factor` from step `after` to the end of the schedule."""

    def __init__(self, after: int, factor: float) -> None:
        self._after, self._factor = after, factor

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == self._after:
            scheduler = kwargs["lr_scheduler"]
            scheduler.base_lrs = [rate * self._factor for rate in scheduler.base_lrs]
            for group in scheduler.optimizer.param_groups:
                group["lr"] *= self._factor


def _steps(setting: Setting) -> int:
    """T, which every experiment gives."""
    assert isinstance(setting.select_steps, int)
    return setting.select_steps


def faster(setting: Setting) -> Prepared:
    """The default, with `options["factor"]` times the learning rate after the selection."""
    options = dict(setting.options)
    callback = FasterCallback(_steps(setting), options.pop("factor"))
    prepared = weightlora(replace(setting, options=options))
    return replace(prepared, callbacks=(*prepared.callbacks, callback))


class SampledCallback(TrainerCallback):
    """Trains only about `keep` adapters in each step up to `steps`. All adapters take turns, in a new random order.

    The other adapters still contribute to the forward pass.
    """

    def __init__(self, keep: int, steps: int, seed: int) -> None:
        self._keep, self._steps = keep, steps
        self._generator = torch.Generator().manual_seed(seed)
        self._turns: list[list[int]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._adapters = find_adapters(kwargs["model"])

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step < self._steps:
            if not self._turns:
                n = len(self._adapters)
                turns = torch.randperm(n, generator=self._generator).tensor_split(round(n / self._keep))
                self._turns = [turn.tolist() for turn in turns]
            self._train(self._turns.pop())

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step < self._steps:
            self._train(range(len(self._adapters)))

    def _train(self, turn: Sequence[int]) -> None:
        for index, adapter in enumerate(self._adapters):
            for parameter in adapter.parameters:
                parameter.requires_grad_(index in turn)


def sampled(setting: Setting) -> Prepared:
    """The default, but each step of the selection phase trains only K of the adapters."""
    prepared = weightlora(setting)
    callback = SampledCallback(setting.keep, _steps(setting), setting.seed)
    return replace(prepared, callbacks=(*prepared.callbacks, callback))


METHODS = {
    "by-gradient": Method(by_gradient, CONFIG_OPTIONS | {"per_block"}),
    "faster": Method(faster, CONFIG_OPTIONS | {"factor"}),
    "sampled": Method(sampled, CONFIG_OPTIONS),
}
