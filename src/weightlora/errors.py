"""The errors that a user can mend. The command line turns these, and only these, into one sentence with exit code 2.

A message names the value, the rule and the remedy, in that order.
"""

__all__ = [
    "ConfigError",
    "DataError",
    "MissingPackageError",
    "ModelError",
    "StateError",
    "TrainingError",
    "WeightLoraError",
]


MOST_CHARACTERS = 2000


class WeightLoraError(ValueError):
    """Base class of all errors of this package.

    Of a message of more than 2,000 characters, which quotes a strange input, the middle is left out.
    """

    def __str__(self) -> str:
        text, half = super().__str__(), MOST_CHARACTERS // 2
        return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} [...] {text[-half:]}"


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


class MissingPackageError(ModuleNotFoundError, WeightLoraError):
    """A package that one of the extras installs is not there. Also caught by `except ImportError`."""
