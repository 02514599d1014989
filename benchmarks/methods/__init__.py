"""Methods that exist only to be compared: name -> how to prepare the model."""

from weightlora.train.methods import CONFIG_OPTIONS, METHODS, Method

from . import lists, peft, probes, ranks, rivals, within
from .subsets import random_without, rival, subset
from .variants import by_gradient, faster, sampled

__all__ = ["ALL_METHODS", "RIVALS"]

RIVALS = {
    "subset": Method(subset, frozenset({"kept"})),
    "rival": Method(rival, frozenset({"rule", "at", "evidence", "keep_parameters"})),
    "random-without": Method(random_without, frozenset({"without"})),
    "by-gradient": Method(by_gradient, CONFIG_OPTIONS | {"per_block"}),
    "faster": Method(faster, CONFIG_OPTIONS | {"factor"}),
    "sampled": Method(sampled, CONFIG_OPTIONS),
}
"""Sets of adapters that the package would not choose, and variants of its default."""

ALL_METHODS = {
    **METHODS,
    **peft.METHODS,
    **RIVALS,
    **lists.METHODS,
    **probes.METHODS,
    **ranks.METHODS,
    **rivals.METHODS,
    **within.METHODS,
}
"""Every method that an experiment may name."""
