"""A PEFT model: what is inside its wrappers, and PEFT's own records of it."""

from accelerate.utils import extract_model_from_parallel
from peft import LoraConfig, PeftMixedModel, PeftModel, PeftType
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from ..errors import ModelError

WRAPPED = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # what torch calls the module in a wrapper


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of DDP and `torch.compile`."""
    if isinstance(model, PeftModel | BaseTuner) and "_orig_mod" not in model.__dict__:
        return model  # Accelerate would look at every module inside it first
    inside: nn.Module = extract_model_from_parallel(model, keep_torch_compile=False)
    return inside


def base_model_of(model: nn.Module) -> nn.Module:
    """The model whose module names PEFT's config speaks of, freed from wrappers (DDP, torch.compile, PEFT's own)."""
    model = unwrap_model(model)
    if isinstance(model, PeftModel):
        return model.get_base_model()
    return model.model if isinstance(model, BaseTuner) else model


def own_name(name: str) -> str:
    """A module's name as it was before FSDP1 and its activation checkpointing wrapped modules inside the model."""
    return ".".join(part for part in name.split(".") if part not in WRAPPED)


def tuner_of(model: nn.Module) -> BaseTuner | None:
    """PEFT's tuner, which keeps lists of its own of what it adapted; None where PEFT was injected without one."""
    model = unwrap_model(model)
    tuner = model.base_model if isinstance(model, PeftModel) else model
    return tuner if isinstance(tuner, BaseTuner) else None


def lora_config_of(model: nn.Module, adapter_name: str) -> LoraConfig:
    """PEFT's config of the named adapter.

    Raises:
        ModelError: If the model has no such adapter, or it is not LoRA.
    """
    configs = getattr(inside := unwrap_model(model), "peft_config", None)
    if isinstance(inside, PeftMixedModel):
        raise ModelError(
            "the model is a PeftMixedModel, which PEFT cannot save: call get_peft_model without mixed=True."
        )
    if not configs:
        raise ModelError(
            f"{type(model).__name__} has no PEFT adapters: call model = get_peft_model(base, LoraConfig(...)) first."
        )
    if adapter_name not in configs:
        raise ModelError(f"adapter_name={adapter_name!r} is not on the model: it has {', '.join(map(repr, configs))}.")
    config: LoraConfig = configs[adapter_name]
    if config.peft_type != PeftType.LORA:
        raise ModelError(
            f"adapter {adapter_name!r} is {config.peft_type}, and only LoRA can be selected: use a LoraConfig for it."
        )
    return config
