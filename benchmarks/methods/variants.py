"""Variants of this package's default method, to see what each of its parts contributes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weightlora.adapters import find_adapters
from weightlora.config import WeightLoraConfig
from weightlora.train.methods import Prepared, Setting, weightlora
from weightlora.trainers.callback import WeightLoraCallback

from .scores import relative_to_block

__all__ = ["ByGradientCallback", "FasterCallback", "SampledCallback", "by_gradient", "faster", "sampled"]


class ByGradientCallback(WeightLoraCallback):
    """Selects by the sum of the norms of dL/dB, not by credit. With `per_block`, relative to the mean of the block."""

    def __init__(self, config: WeightLoraConfig, per_block: bool) -> None:
        super().__init__(config)
        self._per_block = per_block
        self._norms: dict[str, float] = {}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_optimizer_step(args, state, control, **kwargs)
        selector = self._get()
        if selector.phase != "train":
            for adapter in selector.adapters:
                gradient = adapter.factors[1].grad
                norm = 0.0 if gradient is None else float(gradient.norm())
                self._norms[adapter.name] = self._norms.get(adapter.name, 0.0) + norm
            scores = np.array([self._norms[adapter.name] for adapter in selector.adapters])
            if self._per_block:
                scores = relative_to_block(scores, [adapter.name for adapter in selector.adapters])
            selector._rule.score = torch.as_tensor(scores, dtype=torch.float64)


def by_gradient(setting: Setting) -> Prepared:
    """The default, but adapters are ranked by the norm of their gradient."""
    options = dict(setting.options)
    per_block = options.pop("per_block", False)
    config = WeightLoraConfig(keep=setting.keep, select_steps=setting.select_steps, seed=setting.seed, **options)
    return Prepared(setting.lora(), (ByGradientCallback(config, per_block),))


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


def faster(setting: Setting) -> Prepared:
    """The default, with `options["factor"]` times the learning rate after the selection."""
    options = dict(setting.options)
    callback = FasterCallback(setting.select_steps, options.pop("factor"))
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
    callback = SampledCallback(setting.keep, setting.select_steps, setting.seed)
    return replace(prepared, callbacks=(*prepared.callbacks, callback))
