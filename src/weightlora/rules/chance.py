"""The control: adapters chosen at random (RLoRA)."""

import torch
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from .base import Rule, Settings


class Chance(Rule):
    """Draws one number for each adapter at the start; the largest stay."""

    name = "random"
    score_label = "random draw"

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        super().__init__(adapters, optimizer, settings)
        generator = torch.Generator().manual_seed(settings.seed % 2**63)
        self.score = torch.rand(len(adapters), dtype=torch.float64, device="cpu", generator=generator)
