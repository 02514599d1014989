"""Probes: rules that choose before the first step, by the gradients of the fresh adapters on a few batches."""

from dataclasses import replace

import torch
from peft import LoraConfig
from torch import Tensor

from weightlora import WeightLoraConfig, select
from weightlora.rules import RULES, Best
from weightlora.rules.gradient import GradientProbe
from weightlora.tensors import to_vector
from weightlora.train.methods import CONFIG_OPTIONS, Method, Prepared, Setting, weightlora

__all__ = ["METHODS", "Energy", "probe_scores"]


class Energy(GradientProbe):
    """L2 norms, whatever the block: PAGE's energy, of the mean gradient."""

    name = "gradient-energy"

    @torch.no_grad()
    def take(self, grad_scale: float) -> Tensor:
        gradients = [adapter.factors[1].grad for adapter in self._adapters]
        return to_vector([torch.zeros(()) if g is None else g.norm() for g in gradients]) / grad_scale

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        self.score = evidence


RULES[Energy.name] = Energy


def probe_scores(setting: Setting) -> dict[str, float]:
    """The scores of the package's probe, by module; the model has no adapters, before and after."""
    lora = LoraConfig(r=setting.rank, lora_alpha=setting.alpha, **setting.target)
    config = WeightLoraConfig(selection=GradientProbe.name, keep=1, seed=setting.seed)
    scores = select(setting.model, list(setting.batches()), config, lora=lora, progress=False).scores
    return {name: float(score or 0) for name, score in scores.items()}


def probe(setting: Setting) -> Prepared:
    """The package's probe, or another rule (`options["selection"]`). It chooses, and trains what it chose."""
    options = {"selection": GradientProbe.name, "keep": None, "keep_parameters": 0.25}
    return weightlora(replace(setting, select_steps=None, options=options | setting.options))


METHODS = {"probe": Method(probe, CONFIG_OPTIONS)}
