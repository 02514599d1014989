"""Given sets of adapters, and sets that other rules than ours would choose, trained alone from the start."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weightlora.adapters import block_of, find_adapters
from weightlora.budget import plan_budgets, top_k_within
from weightlora.config import WeightLoraConfig
from weightlora.train.methods import Prepared, Setting, keep_only, random, weightlora
from weightlora.trainers.callback import WeightLoraCallback

__all__ = ["RIVALS", "RULES", "choose"]

Scores = np.ndarray

RULES: dict[str, Callable[[Mapping[str, Scores], Scores], Scores]] = {
    "credit": lambda e, sizes: e["credit"],
    "credit-per-block": lambda e, sizes: e["credit"],
    "credit-per-parameter": lambda e, sizes: e["credit"] / sizes,
    "credit-per-root": lambda e, sizes: e["credit"] / np.sqrt(sizes),
    "credit-times-update": lambda e, sizes: e["credit"] * e["update"],
    "next-credit": lambda e, sizes: e["next_credit"],
    "next-credit-over-noise": lambda e, sizes: e["next_credit"] / np.sqrt(e["next_credit_squared"]),
    "gate": lambda e, sizes: e["gate"],
    "gate-over-noise": lambda e, sizes: e["gate"] / np.sqrt(e["gate_squared"]),
    "gradient": lambda e, sizes: e["gradient"],
    "gradient-per-block": lambda e, sizes: e["gradient"],
    "update": lambda e, sizes: e["update"],
    "leave-one-out": lambda e, sizes: e["leave_one_out"],
}
"""Score of each adapter from a record of `EvidenceCallback` and the adapters' sizes; the highest stay.

Those of rules `...-per-block` count relative to the mean magnitude of the adapter's block.
"""


def choose(
    record: Mapping[str, Any], sizes: Mapping[str, int], rule: str, keep: int, keep_parameters: int | None = None
) -> list[str]:
    """The `keep` adapters that a rule would choose, in the model's order.

    Args:
        record: Of `EvidenceCallback` at one step.
        sizes: Parameters of each adapter, in the model's order.
        rule: Key in `RULES`.
        keep: K.
        keep_parameters: The most that they may have together; as in `selection="credit"`, those of `keep` average
            adapters if None.

    Raises:
        ValueError: If there is no such rule, the record lacks its evidence, or the K smallest are too many parameters.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is unknown: choose one of {', '.join(RULES)}.")
    parameters = list(sizes.values())
    try:
        scores = RULES[rule]({name: np.asarray(values) for name, values in record.items()}, np.asarray(parameters))
    except KeyError as error:
        raise ValueError(f"the record has no {error.args[0]!r}, which rule {rule!r} needs.") from error
    if rule.endswith("-per-block"):
        scores = _relative_to_block(scores, list(sizes))
    ((_, most),) = plan_budgets(parameters, keep, keep_parameters, rounds=1, share=True)
    kept = top_k_within(torch.as_tensor(scores, dtype=torch.float64), keep, parameters, most).tolist()
    return [name for name, stays in zip(sizes, kept, strict=True) if stays]


def _relative_to_block(scores: Scores, names: Sequence[str]) -> Scores:
    blocks = np.array([block_of(name) for name in names])
    return scores / np.array([np.abs(scores[blocks == block]).mean() or 1.0 for block in blocks])


def subset(setting: Setting) -> Prepared:
    """The adapters that `options["kept"]` names."""
    return keep_only(setting.lora(), setting.options["kept"])


def rival(setting: Setting) -> Prepared:
    """The K adapters that `options["rule"]` chooses from what LoRA on all modules told up to step `options["at"]`.

    `options["evidence"]` is the folder of the results of LoRA with evidence; the one of the same seed is read.
    Without `options["keep_parameters"]` they have at most the parameters of K average adapters.
    """
    path = Path(setting.options["evidence"]) / f"seed-{setting.seed}.json"
    if not path.exists():
        raise ValueError(f"the evidence {path} is missing: run the method that writes it first.")
    record = json.loads(path.read_text(encoding="utf-8"))["evidence"][str(setting.options["at"])]
    model = setting.lora()
    sizes = {adapter.name: adapter.size for adapter in find_adapters(model)}
    most = setting.options.get("keep_parameters")
    return keep_only(model, choose(record, sizes, setting.options["rule"], setting.keep, most))


def random_without(setting: Setting) -> Prepared:
    """K adapters at random, none of them on a module whose name matches `options["without"]`, a regular expression."""
    target = {**setting.target, "exclude_modules": setting.options["without"]}
    return random(replace(setting, target=target, options={}))


class ByGradientCallback(WeightLoraCallback):
    """Chooses by the sum of the norms of dL/dB instead of by credit; relative to the block's mean, if `per_block`."""

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
                scores = _relative_to_block(scores, [adapter.name for adapter in selector.adapters])
            selector._rule.score = torch.as_tensor(scores, dtype=torch.float64)


def by_gradient(setting: Setting) -> Prepared:
    """This package's default, but for what it ranks by: the gradient's norm, `options["per_block"]` or not."""
    options = dict(setting.options)
    per_block = options.pop("per_block", False)
    config = WeightLoraConfig(keep=setting.keep, select_steps=setting.select_steps, seed=setting.seed, **options)
    return Prepared(setting.lora(), (ByGradientCallback(config, per_block),))


class FasterCallback(TrainerCallback):
    """Multiplies the learning rate of all that is left, from step `after` to the end of the schedule."""

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
    """This package's default, with `options["factor"]` times the learning rate after the selection."""
    options = dict(setting.options)
    callback = FasterCallback(setting.select_steps, options.pop("factor"))
    prepared = weightlora(replace(setting, options=options))
    return replace(prepared, callbacks=(*prepared.callbacks, callback))


class SampledCallback(TrainerCallback):
    """Lets a step up to `steps` train about `keep` adapters only; in turns, whose order is drawn anew each time.

    What has its turn in another step still counts in the forward pass.
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
    """This package's default, but a step of the selection phase trains K of the adapters only."""
    prepared = weightlora(setting)
    callback = SampledCallback(setting.keep, setting.select_steps, setting.seed)
    return replace(prepared, callbacks=(*prepared.callbacks, callback))


RIVALS: dict[str, Callable[[Setting], Prepared]] = {
    "subset": subset,
    "rival": rival,
    "random-without": random_without,
    "by-gradient": by_gradient,
    "faster": faster,
    "sampled": sampled,
}
