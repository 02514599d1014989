"""WeightLoRA (arXiv 2506.02724): find out which LoRA adapters a model needs for fine-tuning, and keep only those."""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from .errors import WeightLoraError
from .extras import explain_missing

if TYPE_CHECKING:
    from .checkpoint import restore
    from .config import WeightLoraConfig
    from .export import export_adapter
    from .prefix import PrefixCache
    from .run import save_run
    from .selection.choosing import select
    from .selection.record import Selection
    from .selector import WeightLora
    from .trainers.caching import PrefixCacheCallback
    from .trainers.callback import WeightLoraCallback
    from .trainers.lightning import WeightLoraLightningCallback
    from .trainers.trainer import WeightLoraTrainer, WeightLoraTrainerMixin
    from .trainers.trl import WeightLoraSFTTrainer

__version__ = _version("weightlora")
__all__ = [
    "PrefixCache",
    "PrefixCacheCallback",
    "Selection",
    "WeightLora",
    "WeightLoraCallback",
    "WeightLoraConfig",
    "WeightLoraError",
    "WeightLoraLightningCallback",
    "WeightLoraSFTTrainer",
    "WeightLoraTrainer",
    "WeightLoraTrainerMixin",
    "export_adapter",
    "restore",
    "save_run",
    "select",
]

# Loaded when asked for: torch and PEFT take seconds, and not every loop needs transformers.Trainer, TRL or Lightning.
_LAZY = {
    "PrefixCache": "prefix",
    "PrefixCacheCallback": "trainers.caching",
    "Selection": "selection.record",
    "WeightLora": "selector",
    "WeightLoraCallback": "trainers.callback",
    "WeightLoraConfig": "config",
    "WeightLoraLightningCallback": "trainers.lightning",
    "WeightLoraSFTTrainer": "trainers.trl",
    "WeightLoraTrainer": "trainers.trainer",
    "WeightLoraTrainerMixin": "trainers.trainer",
    "export_adapter": "export",
    "restore": "checkpoint",
    "save_run": "run",
    "select": "selection.choosing",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        with explain_missing():
            return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
