"""WeightLoRA (arXiv 2506.02724): learn while fine-tuning which LoRA adapters deserve to stay, and keep only those."""

from importlib import import_module
from importlib.metadata import version as _version
from typing import Any

from .checkpoint import restore
from .config import WeightLoraConfig
from .errors import WeightLoraError
from .run import save_run
from .selector import WeightLora

__version__ = _version("weightlora")
__all__ = [
    "WeightLora",
    "WeightLoraCallback",
    "WeightLoraConfig",
    "WeightLoraError",
    "WeightLoraLightningCallback",
    "WeightLoraSFTTrainer",
    "WeightLoraTrainer",
    "WeightLoraTrainerMixin",
    "restore",
    "save_run",
]

# They import transformers.Trainer, TRL or Lightning, which not every loop needs.
_LAZY = {
    "WeightLoraCallback": "trainers.callback",
    "WeightLoraLightningCallback": "trainers.lightning",
    "WeightLoraTrainerMixin": "trainers.trainer",
    "WeightLoraTrainer": "trainers.trainer",
    "WeightLoraSFTTrainer": "trainers.trl",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
