"""Rules: how the selection ranks adapters. A new rule is one file in this folder, and one line in this one."""

from .base import Best, Rule, Settings, check_finite
from .chance import Chance
from .credit import UpdateCredit
from .gates import StoIHT
from .gradient import GradientProbe

__all__ = ["RULES", "Best", "Chance", "GradientProbe", "Rule", "Settings", "StoIHT", "UpdateCredit", "check_finite"]

RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (UpdateCredit, GradientProbe, StoIHT, Chance)}
"""Every rule by the name that `WeightLoraConfig.selection` gives it."""
