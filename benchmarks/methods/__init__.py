"""Methods that exist only to be compared: name -> how to prepare the model."""

from collections.abc import Callable

from weightlora.train.methods import METHODS, Prepared, Setting

from .subsets import random_without, rival, subset
from .variants import by_gradient, faster, sampled

__all__ = ["ALL_METHODS", "RIVALS"]

RIVALS: dict[str, Callable[[Setting], Prepared]] = {
    "subset": subset,
    "rival": rival,
    "random-without": random_without,
    "by-gradient": by_gradient,
    "faster": faster,
    "sampled": sampled,
}
"""Other sets of adapters than those that the package would choose, and variants of its default."""

ALL_METHODS = {**METHODS, **RIVALS}
"""Every method that an experiment may name."""
