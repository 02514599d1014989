"""Probes: rules that choose before the first step, by the gradients of the fresh adapters on a few batches."""

from dataclasses import replace

import torch
from torch import Tensor

from weightlora.rules import RULES, Best
from weightlora.rules.gradient import GradientNorm
from weightlora.train.methods import CONFIG_OPTIONS, Method, Prepared, Setting, weightlora

from .scores import relative_to_block

__all__ = ["METHODS", "ProbePerBlock"]


class ProbePerBlock(GradientNorm):
    """Gradient norms relative to the mean of the block that an adapter is in: which kind counts, at every depth."""

    name = "gradient-per-block"

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        super().update(evidence, step, best)
        relative = relative_to_block(self.score.numpy(), [adapter.name for adapter in self._adapters])
        self.score = torch.as_tensor(relative, dtype=torch.float64)


class ProbeHalfPerBlock(GradientNorm):
    """Gradient norms relative to the root of the mean of the block: between the norm and the norm per block."""

    name = "gradient-half-per-block"

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        super().update(evidence, step, best)
        relative = relative_to_block(self.score.numpy(), [adapter.name for adapter in self._adapters])
        self.score = (self.score * torch.as_tensor(relative, dtype=torch.float64)).sqrt()


RULES |= {rule.name: rule for rule in (ProbePerBlock, ProbeHalfPerBlock)}


def probe(setting: Setting) -> Prepared:
    """The package's probe, or a variant of it (`options["selection"]`). A list before training: both are one run."""
    options = {"selection": GradientNorm.name, "keep": None, "keep_parameters": 0.25}
    return weightlora(replace(setting, options=options | setting.options))


METHODS = {"probe": Method(probe, CONFIG_OPTIONS)}
