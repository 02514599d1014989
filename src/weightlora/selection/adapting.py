"""The LoRA adapters that a selection works on: those of the model, or fresh ones on all of its linear modules."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..adapters import unwrap_model
from ..adapters.variants import refuse_config
from ..errors import ConfigError, ModelError
from ..fresh import fresh_modules

RANK, ALPHA = 8, 32
"""r and `lora_alpha` of the adapters that are added here."""

HEADS = {"QUESTION_ANS": {"qa_outputs"}, "TOKEN_CLS": {"classifier", "score"}}
"""Linear heads, which are trained in full. PEFT's all-linear would adapt them, too."""

SAVED = {"SEQ_CLS": HEADS["TOKEN_CLS"], **HEADS}
"""PEFT's task type -> the ends of the names of the modules that PEFT trains in full, and saves beside the adapters."""

TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
"""End of a class's name in Transformers -> PEFT's task type, with which PEFT trains the head of the task, too."""


WITHOUT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("falcon_h1", "mamba2", "nemotron_h"), ("out_proj",)),
    **dict.fromkeys(("falcon_mamba", "mamba"), ("out_proj", "dt_proj")),
    "jamba": ("dt_proj",),
}
"""Model types -> modules that have no adapter: PEFT refuses one on `out_proj` (`peft.tuners.tuners_utils`), and one on
`dt_proj` would have no effect, because the model reads the weight without calling the module."""


def adapted(model: nn.Module, lora: LoraConfig | None) -> nn.Module:
    """The model with LoRA adapters: as it is, or with fresh ones. Those are put into the model itself.

    Args:
        model: A model with or without PEFT adapters, wrapped by `torch.compile` or not.
        lora: The adapters to add; None adds rank 8 to all linear modules. It stays as it is.

    Raises:
        ConfigError: If `lora` is given for a model that has adapters.
        ModelError: If PEFT cannot adapt the model, or nothing can be chosen from such adapters.
    """
    if getattr(unwrap_model(model), "peft_config", None):
        if lora is not None:
            raise ConfigError("lora=... adds adapters, and this model has some: leave it out, or pass the base model.")
        return model
    base: Any = unwrap_model(model)
    _refuse_quantization(base)
    if lora is not None and not isinstance(lora, LoraConfig):
        raise ConfigError(f"lora={lora!r} is a {type(lora).__name__}: pass a peft.LoraConfig.")
    config = copy.deepcopy(lora) if lora is not None else _default(base)
    refuse_config(config)  # some initialisations change the base weights at once
    try:
        return get_peft_model(base, config)
    except (ValueError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        if lora is not None:
            raise ModelError(f"PEFT cannot add this lora to {type(base).__name__}: {reason}.") from error
        raise ModelError(
            f"PEFT cannot add LoRA to {type(base).__name__} ({reason}): pass lora=LoraConfig(target_modules=[...]) "
            "with modules that it can adapt."
        ) from error


def _default(base: nn.Module) -> LoraConfig:
    task_type = task_type_of(base)
    targets = all_linear(base, task_type)
    if not targets:
        raise ModelError(
            f"{type(base).__name__} has no linear modules to adapt: pass lora=LoraConfig(target_modules=[...]) with "
            "the modules to choose from."
        )
    return LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=targets,
        exclude_modules=beside_linear(base, targets),
        modules_to_save=_saved(base, task_type) or None,
        task_type=task_type,
    )


def _saved(base: nn.Module, task_type: str | None) -> list[str]:
    """What to train in full beside the head of the task, which PEFT trains: a CTC model's head, and random weights."""
    heads = SAVED.get(str(task_type), set())
    fresh = [name for name in fresh_modules(base) if heads.isdisjoint(name.split("."))]
    return [*dict.fromkeys([*_ctc_head(base), *ends_as_head(base, task_type), *fresh])]


def beside_linear(model: nn.Module, targets: Any) -> str | None:
    """PEFT's `exclude_modules` for `all_linear`: what it would adapt by these targets, and should not; else None."""
    modules, linear = dict(model.named_modules()), set(_linears(model))
    if isinstance(targets, str):  # all-linear
        others = [name for name, module in modules.items() if isinstance(module, nn.Linear) and name not in linear]
    else:
        ends = tuple(f".{name}" for name in targets)
        others = [name for name in modules if f".{name}".endswith(ends) and name not in linear]
    return "|".join(map(re.escape, others)) or None


def task_type_of(model: nn.Module) -> str | None:
    """PEFT's task type for a model of Transformers whose head is trained in full; None for others."""
    name = type(model).__name__
    return next((task_type for end, task_type in TASK_TYPES.items() if name.endswith(end)), None)


def ends_as_head(model: nn.Module, task_type: str | None) -> list[str]:
    """Modules that PEFT trains in full because their names end as a head's does: `pre_classifier` of DistilBERT.

    As targets they would be adapted first, and PEFT would then fail. In `modules_to_save` they are not targets.
    """
    ends = SAVED.get(str(task_type), set())
    return [name for name in _linears(model) if name.endswith(tuple(ends)) and ends.isdisjoint(name.split("."))]


def saved_in_full(lora: Mapping[str, Any]) -> list[str]:
    """PEFT's `modules_to_save` without the heads that PEFT adds for the `task_type`. Both are entries of `lora`."""
    heads = SAVED.get(str(lora.get("task_type")), set())
    return [name for name in lora.get("modules_to_save") or () if name not in heads]


def all_linear(model: nn.Module, task_type: str | None) -> Any:
    """`target_modules` for all linear modules but the heads: what PEFT's `"all-linear"` means, for any module.

    Args:
        model: The base model.
        task_type: PEFT's.

    Returns:
        `"all-linear"` where PEFT takes it, else the names; an empty list if there are none.
    """
    names = _linears(model)
    if not isinstance(model, PreTrainedModel) or not names:
        return names
    heads = _ctc_head(model) or HEADS.get(str(task_type), set())
    return sorted({name.rpartition(".")[2] for name in names} - heads) if heads else "all-linear"


def _ctc_head(model: nn.Module) -> set[str]:
    """The head of a CTC model, which PEFT would take for an embedding, and could not save; empty for others."""
    return {"lm_head"} if type(model).__name__.endswith("ForCTC") else set()


def _linears(model: nn.Module) -> list[str]:
    """The linear modules that PEFT can adapt.

    It cannot adapt the routers of Llama 4 and PhiMoE, which give a tuple, and modules of Mamba's blocks whose weights
    the model or a kernel reads.
    """
    refused = WITHOUT.get(getattr(getattr(model, "config", None), "model_type", ""), ())
    return [
        name
        for name, module in model.named_modules()
        if name
        and isinstance(module, nn.Linear | Conv1D)
        and not type(module).__name__.endswith("Router")
        and name.rpartition(".")[2] not in refused
    ]


def _refuse_quantization(model: Any) -> None:
    """Raise a `ModelError` if the weights are quantized so that no gradient passes through them."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_trainable:
        method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", type(quantizer).__name__)
        raise ModelError(
            f"the model is quantized with {getattr(method, 'value', method)}, which cannot be trained through: load "
            "it without quantization, or with bitsandbytes."
        )
