"""What one must know of PEFT's LoRA layers: handles, variants, surgery, expansion."""

from .handles import (
    WRAPPED,
    LoraAdapter,
    base_model_of,
    find_adapters,
    lora_config_of,
    own_name,
    tuner_of,
    unwrap_model,
)

__all__ = [
    "WRAPPED",
    "LoraAdapter",
    "base_model_of",
    "find_adapters",
    "lora_config_of",
    "own_name",
    "tuner_of",
    "unwrap_model",
]
