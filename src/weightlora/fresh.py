"""Weights that a model's checkpoint lacked: they are random, and only in the adapter where PEFT is told so."""

import warnings
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from .adapters import base_model_of, own_name

__all__ = ["fresh_modules", "warn_of_fresh"]

WRAPPERS: tuple[Any, ...] = (AuxiliaryTrainingWrapper, BaseTunerLayer)
"""PEFT's: around a module that it trains in full, and around one that it adapts."""


def fresh_modules(model: nn.Module) -> list[str]:
    """Linear modules whose weights Transformers drew at random, because the checkpoint lacks them.

    Those in `modules_to_save` of an adapter are left out, because PEFT saves them, and so is the output layer of a
    language model, which it saves where the vocabulary has grown. Transformers marks what it loads, and without marks
    the list is empty: the model was not loaded, or copied since.
    """
    base: Any = base_model_of(model)
    linear, inside = {}, set[int]()
    output = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if isinstance(output, nn.Module):
        inside.update(map(id, output.modules()))
    for name, module in base.named_modules():
        if id(module) in inside:
            continue
        if isinstance(module, WRAPPERS):
            inside.update(map(id, module.modules()))
        found: Any = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        weight = found._parameters.get("weight")  # to ask for `.weight` runs what computes it, such as spectral_norm
        if isinstance(found, nn.Linear) and _is_plain(weight):
            linear[own_name(name)] = weight
    fresh = [name for name, weight in linear.items() if not _is_loaded(weight)]
    return fresh if len(fresh) < sum(map(_is_loaded, base.parameters())) else []


def warn_of_fresh(model: nn.Module) -> None:
    """Warn of random weights that PEFT will not save."""
    if fresh := fresh_modules(model):
        warnings.warn(
            f"the checkpoint of the model has no weights of {', '.join(fresh)}, so they are random, and PEFT does not "
            "save them: whoever loads the adapter gets others. Give LoraConfig the task_type, or these names as "
            "modules_to_save.",
            stacklevel=4,
        )


def _is_plain(weight: Any) -> bool:
    """Whether a weight is one that Transformers can have drawn: neither quantized nor left out of memory."""
    return type(weight) is nn.Parameter and weight.is_floating_point() and weight.device.type != "meta"


def _is_loaded(parameter: Any) -> bool:
    return getattr(parameter, "_is_hf_initialized", False)
