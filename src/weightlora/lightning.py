"""Moved: import `WeightLoraLightningCallback` from `weightlora`."""

import warnings

from .trainers.lightning import WeightLoraLightningCallback

__all__ = ["WeightLoraLightningCallback"]

warnings.warn(
    "weightlora.lightning has moved: write `from weightlora import WeightLoraLightningCallback`.",
    DeprecationWarning,
    stacklevel=2,
)
