"""WeightLoRA (arXiv 2506.02724): learn while fine-tuning which LoRA adapters deserve to stay, and keep only those."""

from importlib.metadata import version as _version
from typing import Any

from .config import WeightLoraConfig
from .export import save_run
from .selector import WeightLora

__version__ = _version("weightlora")
__all__ = ["WeightLora", "WeightLoraCallback", "WeightLoraConfig", "save_run"]


def __getattr__(name: str) -> Any:
    if name == "WeightLoraCallback":  # imports transformers.Trainer, which not every loop needs
        from .trainer import WeightLoraCallback

        return WeightLoraCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
