"""Moved: import `WeightLoraLightningCallback` from `weightlora`. This name leaves in version 0.3."""

import warnings

from .trainers.lightning import WeightLoraLightningCallback

__all__ = ["WeightLoraLightningCallback"]

warnings.warn(
    "weightlora.lightning is deprecated and leaves in version 0.3: write `from weightlora import "
    "WeightLoraLightningCallback`.",
    DeprecationWarning,
    stacklevel=2,
)
