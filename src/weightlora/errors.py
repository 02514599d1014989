"""The errors that a user can mend. The command line turns these, and only these, into one sentence with exit code 2.

A message names the value, the rule and the remedy, in that order.
"""

__all__ = ["ConfigError", "DataError", "ModelError", "StateError", "TrainingError", "WeightLoraError"]


class WeightLoraError(ValueError):
    """Base class of all errors of this package."""


class ConfigError(WeightLoraError):
    """A setting breaks a rule, or two settings do not go together."""


class ModelError(WeightLoraError):
    """The model, its adapters, its optimizer or the engine around it does not fit."""


class StateError(WeightLoraError):
    """A saved state or checkpoint is missing, damaged, or of another run."""


class TrainingError(WeightLoraError):
    """A training step gave no usable evidence: no gradient, no optimizer step, or a loss that diverged."""


class DataError(WeightLoraError):
    """A file, a directory or a data set is missing, malformed, or in the way."""
