"""Methods that exist only to be compared: name -> how to prepare the model."""

from weightlora.train.methods import METHODS

from . import lists, peft, probes, ranks, rivals, start, subsets, variants, within

__all__ = ["ALL_METHODS"]

ALL_METHODS = {
    **METHODS,
    **peft.METHODS,
    **subsets.METHODS,
    **variants.METHODS,
    **lists.METHODS,
    **probes.METHODS,
    **ranks.METHODS,
    **rivals.METHODS,
    **start.METHODS,
    **within.METHODS,
}
"""Every method that an experiment may name."""
