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

    Example:
        ```python
        try:
            WeightLoraConfig(keep=0)
        except WeightLoraError as error:
            print(error)  # the value, the rule, and what to do
        ```
    """

    def __str__(self) -> str:
        text, half = super().__str__(), MOST_CHARACTERS // 2
        return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} [...] {text[-half:]}"


class ConfigError(WeightLoraError):
    """A setting breaks a rule, or two settings do not go together.

    Example:
        ```python
        from weightlora.errors import ConfigError

        try:
            WeightLoraConfig(keep=9, select_steps=-1)
        except ConfigError as error:
            print(error)
        ```
    """


class ModelError(WeightLoraError):
    """The model, its adapters, its optimizer or the engine around it does not fit.

    Example:
        ```python
        from weightlora.errors import ModelError

        try:
            WeightLora(base, optimizer, total_steps=500)  # without get_peft_model
        except ModelError as error:
            print(error)
        ```
    """


class StateError(WeightLoraError):
    """A saved state or checkpoint is missing, damaged, or of another run.

    Example:
        ```python
        from weightlora.errors import StateError

        try:
            weightlora.restore(model, "no-checkpoint")
        except StateError as error:
            print(error)
        ```
    """


class TrainingError(WeightLoraError):
    """A training step gave no usable evidence: no gradient, no optimizer step, or a loss that diverged.

    Example:
        ```python
        from weightlora.errors import TrainingError

        try:
            WeightLora(model, optimizer, total_steps=500).step()  # without optimizer.step()
        except TrainingError as error:
            print(error)
        ```
    """


class DataError(WeightLoraError):
    """A file, a directory or a data set is missing, malformed, or in the way.

    Example:
        ```python
        from weightlora.errors import DataError

        try:
            Selection.load("no-run")
        except DataError as error:
            print(error)
        ```
    """


class MissingPackageError(ModuleNotFoundError, WeightLoraError):
    """A package that one of the extras installs is not there. Also caught by `except ImportError`.

    Example:
        ```python
        from weightlora.errors import MissingPackageError
        from weightlora.report import draw_selection

        try:
            draw_selection("runs/first")
        except MissingPackageError as error:
            raise SystemExit(str(error)) from error
        ```
    """
