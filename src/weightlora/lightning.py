"""Moved: import `WeightLoraLightningCallback` from `weightlora`."""

from .deprecation import announce
from .trainers.lightning import WeightLoraLightningCallback

__all__ = ["WeightLoraLightningCallback"]

announce("weightlora.lightning", "`from weightlora import WeightLoraLightningCallback`", removed_in="0.3")
