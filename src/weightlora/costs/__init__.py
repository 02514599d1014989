"""What a training step costs with a set of adapters, in seconds or in bytes: measured, predicted, and bounded."""

from .limit import CostLimit, limit_for
from .measuring import measure
from .model import Costs
from .packing import best_within

__all__ = ["CostLimit", "Costs", "best_within", "limit_for", "measure"]
