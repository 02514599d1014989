"""PEFT's own config, made to describe exactly the adapters that are on the model."""

import copy
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from torch import nn

from .finding import find_adapters
from .handles import LoraAdapter
from .models import base_model_of, lora_config_of, own_name, tuner_of, unwrap_model

MOST_NAMES = 256  # Python keeps 512 compiled patterns; with more, PEFT compiles each of them anew for each module


EXPORT = (
    "Servers that ignore rank_pattern and alpha_pattern would serve another model than this one, so run `weightlora "
    "export ADAPTER_DIR OUT_DIR` on the saved adapter, and serve OUT_DIR."
)
"""What is said where `misread` holds."""


def misread(adapters: Iterable[LoraAdapter]) -> bool:
    """Whether some servers scale these adapters otherwise than PEFT: ranks or scalings differ, or rsLoRA scales them.

    vLLM before 0.32 and SGLang take one scaling for all, llama.cpp divides one alpha by each rank, and the last two
    know nothing of rsLoRA.
    """
    adapters = list(adapters)
    return len({(one.rank, one.scaling) for one in adapters}) > 1 or any(one.rslora for one in adapters)


def describe_(model: nn.Module, adapter_name: str) -> None:
    """Make PEFT's config name exactly the adapters that are on the model, with their ranks and alphas.

    Names are written in full. Where a full name would match more than its own module (PEFT also takes names as
    suffixes, and the keys of `rank_pattern` as regular expressions), an anchored pattern is written instead.
    """
    configs: Any = unwrap_model(model).peft_config
    # A copy: the user may build another model with the one before, or another adapter has it (TRL's DPO).
    config = configs[adapter_name] = copy.deepcopy(lora_config_of(model, adapter_name))
    adapters = find_adapters(model, adapter_name, check=False)
    modules = [adapter.name for adapter in adapters if adapter.kind == "module"]
    parameters = [adapter.name for adapter in adapters if adapter.kind == "parameter"]

    config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    config.target_modules = _with_embeddings(model, modules)  # type: ignore[assignment]  # a set, to unite adapters
    config.target_parameters = parameters or None
    longer = longer_names(model, modules) - set(modules)
    if any(check_target_module_exists(config, name) for name in longer):
        config.target_modules = "|".join(f"(?:{re.escape(name)})" for name in modules)

    ranks = {adapter.name: adapter.rank for adapter in adapters}
    if config.init_lora_weights == "orthogonal" and any(rank % 2 for rank in ranks.values()):
        config.init_lora_weights = True  # PEFT builds no odd rank with it; whoever loads the adapter overwrites it
    alphas = {adapter.name: adapter.layer.lora_alpha[adapter_name] for adapter in adapters}
    config.r, config.rank_pattern = default_and_exceptions(ranks, max)
    config.lora_alpha, config.alpha_pattern = default_and_exceptions(
        alphas, lambda values: Counter(values).most_common(1)[0][0]
    )

    tuner = tuner_of(model)
    if tuner is not None:
        left = {a.name for other in tuner.peft_config for a in find_adapters(model, other, check=False)}
        tuner.targeted_module_names = [name for name in tuner.targeted_module_names if name in left]
        tuner.targeted_parameter_names = [name for name in tuner.targeted_parameter_names if name in left]


def _with_embeddings(model: nn.Module, modules: Iterable[str]) -> set[str]:
    """The names, but an embedding by its last name, where this matches no other module.

    PEFT saves the base weights of adapted embeddings, which may have new rows, if that name is among the targets.
    """
    names = set(modules)
    for last in EMBEDDING_LAYER_NAMES:
        if (found := longer_names(model, [last])) and found <= names:
            names = names - found | {last}
    return names


def longer_names(model: nn.Module, names: Collection[str]) -> set[str]:
    """Modules whose names end in one of the given names: PEFT takes a name as a suffix, too."""
    targets = set(names)
    plain = {own_name(name).replace(".base_layer", "") for name, _ in base_model_of(model).named_modules()}
    return {name for name in plain if _has_suffix_in(name, targets)}


def default_and_exceptions(
    values: dict[str, Any], choose: Callable[[Iterable[Any]], Any]
) -> tuple[Any, dict[str, Any]]:
    """Split name -> value into PEFT's pair of a default and a pattern dictionary that overrides it by name.

    PEFT tries one pattern after another on each module, so many names of one value are written as one pattern.
    """
    default = choose(values.values())
    exceptions = {name: value for name, value in values.items() if value != default}
    if len(exceptions) > MOST_NAMES:
        by_value: dict[Any, list[str]] = {}
        for name, value in exceptions.items():
            by_value.setdefault(value, []).append(re.escape(name))
        return default, {f"^(?:{'|'.join(names)})": value for value, names in by_value.items()}
    if not _match_alone(exceptions, values):
        exceptions = {f"^{re.escape(name)}": value for name, value in exceptions.items()}
    return default, exceptions


def _match_alone(keys: Collection[str], names: Collection[str]) -> bool:
    """Whether PEFT, which takes keys as regular expressions for the end of a name, finds each in its own name alone.

    Never true where it does not; in time that grows like the number of names.
    """
    if not all(re.fullmatch(r"[\w.-]+", key) for key in keys) or any(_has_suffix_in(name, keys) for name in names):
        return False
    follows: dict[str, set[str]] = {}
    for key in keys:
        for part, after in pairwise(key.split(".")):
            follows.setdefault(part, set()).add(after)
    parts = {part for name in names for part in name.split(".")}
    cuts = ((part[:i], part[i + 1 :]) for part in parts for i in range(1, len(part)))
    # A dot stands for any character: the key "up.proj" would be found in the name "up_proj".
    return not any(first in follows and rest.startswith(tuple(follows[first])) for first, rest in cuts)


def _has_suffix_in(name: str, names: Collection[str]) -> bool:
    """Whether the name ends in a dot and one of the others."""
    parts = name.split(".")
    return any(".".join(parts[start:]) in names for start in range(1, len(parts)))
