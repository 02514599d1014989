"""What cannot be undone: disconnect adapters for real, fold gates, and make PEFT's config describe what is left."""

import copy
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn
from torch.optim import Optimizer

from ..optimizers import drop_parameters_
from .handles import LoraAdapter, base_model_of, find_adapters, lora_config_of, own_name, tuner_of, unwrap_model


def disconnect_(model: nn.Module, adapters: list[LoraAdapter], optimizer: Optimizer | None = None) -> None:
    """Take adapters out of the model, the optimizer and PEFT's records.

    A layer that no other PEFT adapter uses leaves the model, and its base layer takes its place; otherwise the layer
    stays and only loses this adapter. Call `describe_` afterwards.

    Args:
        model: The PEFT model that holds the adapters.
        adapters: What to remove.
        optimizer: Edited in place; None where there is none yet.
    """
    if optimizer is not None:
        drop_parameters_(optimizer, [parameter for adapter in adapters for parameter in adapter.parameters])
    empty: set[nn.Module | LoraLayer] = set()
    for adapter in adapters:
        layer, name = adapter.layer, adapter.adapter_name
        active = layer.active_adapters
        layer._active_adapter = []  # or PEFT would activate another adapter in the deleted one's place
        layer.delete_adapter(name)
        layer._active_adapter = active
        if not layer.scaling:
            empty.add(layer)
    for parent in list(base_model_of(model).modules()):
        for child_name, child in list(parent._modules.items()):
            while child in empty:  # wrappers of several parameters of one module are nested
                child = child.base_layer  # type: ignore[assignment]
            if child is not parent._modules[child_name]:
                setattr(parent, child_name, child)


def silence_(adapters: list[LoraAdapter], optimizer: Optimizer) -> None:
    """As much of `disconnect_` as can be done while an engine holds the parameters: none of them acts or trains."""
    drop_parameters_(optimizer, [parameter for adapter in adapters for parameter in adapter.parameters])
    for adapter in adapters:
        adapter.set_scaling_(0.0)


def fold_gate_(adapter: LoraAdapter, omega: float) -> None:
    """Move a fixed gate into the layer's scaling: `s <- omega s`.

    Not into B: Adam's step does not scale with B, so that would change the learning rate by `1 / omega`.
    """
    adapter.set_scaling_(adapter.scaling * omega)


def free_inputs_(model: nn.Module) -> None:
    """Undo `enable_input_require_grads`, which checkpointing asked for, so that backward ends at the lowest adapter.

    Reentrant checkpointing does need a gradient at the embeddings, and keeps it; so does a model that does not
    checkpoint, where somebody else wants it.
    """
    base = base_model_of(model)
    functions = [m._gradient_checkpointing_func for m in base.modules() if getattr(m, "gradient_checkpointing", False)]
    if not functions or any(getattr(f, "keywords", {}).get("use_reentrant") is not False for f in functions):
        return
    if hasattr(base, "disable_input_require_grads"):
        base.disable_input_require_grads()  # type: ignore[operator]
    # Transformers, PEFT and TRL may each have asked for it, and only the latest hook is on record.
    for module in base.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "").startswith("make_inputs_require_grad"):
                del module._forward_hooks[key]


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
