"""What one must know of PEFT's LoRA layers: handles, gates, variants, surgery, expansion."""

from .finding import find_adapters
from .handles import LoraAdapter
from .models import WRAPPED, base_model_of, lora_config_of, own_name, tuner_of, unwrap_model

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
