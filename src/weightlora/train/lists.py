"""Lists of modules that need no data: PEFT's own, or a user's."""

from collections.abc import Iterable, Sequence
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_DEFAULTS
from torch import nn

from ..errors import ConfigError
from .patterns import check_names, check_patterns, expression_in


def in_peft_default(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the named modules that PEFT adapts if it is given no `target_modules`.

    Raises:
        ConfigError: PEFT has no list for this architecture, or none of the modules is in it.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in PEFT_DEFAULTS:
        raise ConfigError(
            f"PEFT has no default target modules for model type {model_type!r}: leave out the method peft-default."
        )
    targets: Any = PEFT_DEFAULTS[model_type]
    if not (found := _matched(targets, names)):
        shown = targets if isinstance(targets, str) else ", ".join(targets)
        raise ConfigError(
            f"PEFT's default target modules of {model_type} ({shown}) are not among the target modules: leave "
            "target_modules out, or the method peft-default."
        )
    return found


def in_list(targets: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of the named modules that are in a list of names, or of ends of names, or that one expression matches.

    Raises:
        ConfigError: An entry fits none of the modules, or the expression is not valid or takes too long.
    """
    every = [*names]
    if expression := expression_in(targets, every):
        check_patterns([("listed", expression)], every)
        return _matched(expression, every)
    check_names(targets, every, "listed", "target module")
    return _matched([*targets], every)


def _matched(targets: Any, names: Iterable[str]) -> list[str]:
    config = LoraConfig(target_modules=targets)
    return [name for name in names if check_target_module_exists(config, name)]
