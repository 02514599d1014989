"""What a training step costs with a set of adapters, in seconds or in bytes: measured, predicted, and bounded."""

from .frontier import frontier, in_words
from .limit import CostLimit
from .measuring import measure
from .model import Costs
from .packing import best_within

__all__ = ["CostLimit", "Costs", "best_within", "frontier", "in_words", "measure"]
