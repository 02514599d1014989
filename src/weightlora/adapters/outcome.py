"""PEFT's own config, made to describe exactly the adapters that are on the model."""

import copy
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn

from .handles import base_model_of, find_adapters, lora_config_of, own_name, tuner_of, unwrap_model


def describe_(model: nn.Module, adapter_name: str) -> None:
    """Make PEFT's config name exactly the adapters that are on the model, with their ranks and alphas.

    Names are written in full. Where a full name would match more than its own module (PEFT also takes names as
    suffixes, and the keys of `rank_pattern` as regular expressions), an anchored pattern is written instead.
    """
    config = _own_config(model, adapter_name)
    adapters = find_adapters(model, adapter_name, check=False)
    modules = [adapter.name for adapter in adapters if adapter.kind == "module"]
    parameters = [adapter.name for adapter in adapters if adapter.kind == "parameter"]

    config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    config.target_modules = modules
    config.target_parameters = parameters or None
    plain = {_plain_name(name) for name, _ in base_model_of(model).named_modules()}
    if {name for name in plain if check_target_module_exists(config, name)} != set(modules):
        config.target_modules = "|".join(f"(?:{re.escape(name)})" for name in modules)

    ranks = {adapter.name: adapter.rank for adapter in adapters}
    alphas = {adapter.name: adapter.layer.lora_alpha[adapter_name] for adapter in adapters}
    config.r, config.rank_pattern = _default_and_exceptions(ranks, max)
    config.lora_alpha, config.alpha_pattern = _default_and_exceptions(
        alphas, lambda values: Counter(values).most_common(1)[0][0]
    )

    tuner = tuner_of(model)
    if tuner is not None:
        left = {a.name for other in tuner.peft_config for a in find_adapters(model, other, check=False)}
        tuner.targeted_module_names = [name for name in tuner.targeted_module_names if name in left]
        tuner.targeted_parameter_names = [name for name in tuner.targeted_parameter_names if name in left]


def _own_config(model: nn.Module, adapter_name: str) -> LoraConfig:
    """PEFT's config of the adapter, which no other adapter has, too (TRL's DPO gives its frozen copy the same one)."""
    config = lora_config_of(model, adapter_name)
    configs: Any = unwrap_model(model).peft_config
    if sum(other is config for other in configs.values()) > 1:
        config = configs[adapter_name] = copy.deepcopy(config)
    return config


def _plain_name(name: str) -> str:
    return own_name(name).replace(".base_layer", "")


def _default_and_exceptions(values: dict, choose: Callable) -> tuple:
    """Split name -> value into PEFT's pair of a default and a pattern dictionary that overrides it by name."""
    default = choose(values.values())
    exceptions = {name: value for name, value in values.items() if value != default}
    if any(
        exceptions.get(get_pattern_key(list(exceptions), name), default) != value for name, value in values.items()
    ):
        exceptions = {f"^{re.escape(name)}": value for name, value in exceptions.items()}
    return default, exceptions
