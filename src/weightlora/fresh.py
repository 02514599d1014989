"""What a trained model needs and its adapter has only where PEFT is told so.

Weights that the model's checkpoint lacked are random, and running statistics move in each forward pass of a training.
"""

import warnings
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from .adapters import base_model_of, own_name
from .restoring import same_modes

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


def moving_norms(model: nn.Module) -> list[str]:
    """Normalization layers whose running statistics move in training, but for those that PEFT saves in full.

    The model's own `train()` says which do: it may leave some of them in evaluation mode.
    """
    found, inside = {}, set[int]()
    for name, module in base_model_of(model).named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            inside.update(map(id, module.modules()))
        if isinstance(module, _NormBase) and module.running_mean is not None and id(module) not in inside:
            found[own_name(name)] = module
    if not found:
        return []
    with same_modes(model):
        model.train()
        return [name for name, module in found.items() if module.training]


def warn_of_unsaved(model: nn.Module) -> None:
    """Warn of random weights and of running statistics that PEFT will not save."""
    if fresh := fresh_modules(model):
        warnings.warn(
            f"the checkpoint of the model has no weights of {', '.join(fresh)}, so they are random, and PEFT does not "
            "save them: whoever loads the adapter gets others. Give LoraConfig the task_type, or these names as "
            "modules_to_save.",
            stacklevel=4,
        )
    if moving := moving_norms(model):
        warnings.warn(
            f"running statistics of the model ({moving[0]!r}{' and others' if len(moving) > 1 else ''}) move in "
            "training, and PEFT does not save them: whoever loads the adapter gets other outputs. Give LoraConfig "
            "such layers as modules_to_save, or keep them in evaluation mode.",
            stacklevel=4,
        )


def _is_plain(weight: Any) -> bool:
    """Whether a weight is one that Transformers can have drawn: neither quantized nor left out of memory."""
    return type(weight) is nn.Parameter and weight.is_floating_point() and weight.device.type != "meta"


def _is_loaded(parameter: Any) -> bool:
    return getattr(parameter, "_is_hf_initialized", False)
