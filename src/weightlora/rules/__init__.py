"""Rules: how the selection ranks adapters. A new rule is one file in this folder, and one line in this one."""

from .base import Best, Rule, Settings
from .chance import Chance
from .credit import UpdateCredit
from .gates import StoIHT

__all__ = ["RULES", "Best", "Chance", "Rule", "Settings", "StoIHT", "UpdateCredit"]

RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (UpdateCredit, StoIHT, Chance)}
"""Every rule by the name that `WeightLoraConfig.selection` gives it."""
