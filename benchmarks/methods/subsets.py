"""Methods that train a given set of adapters, or a set that another rule would choose, from the start."""

from dataclasses import replace
from pathlib import Path

from weightlora.adapters import find_adapters
from weightlora.errors import DataError
from weightlora.train.methods import Prepared, Setting, keep_only, random
from weightlora.train.result import read_result

from .scores import choose

__all__ = ["random_without", "rival", "subset"]


def subset(setting: Setting) -> Prepared:
    """The adapters in `options["kept"]`."""
    return keep_only(setting.lora(), setting.options["kept"])


def rival(setting: Setting) -> Prepared:
    """The K adapters that `options["rule"]` chooses by the evidence of LoRA on all modules at step `options["at"]`.

    `options["evidence"]` is the folder with the results of LoRA that recorded evidence; the one of the same seed is
    read. Without `options["keep_parameters"]`, the adapters have at most the parameters of K average ones.
    """
    path = Path(setting.options["evidence"]) / f"seed-{setting.seed}.json"
    if not path.exists():
        raise DataError(f"the evidence {path} is missing: run the method that records it first.")
    record = (read_result(path).evidence or {})[str(setting.options["at"])]
    model = setting.lora()
    sizes = {adapter.name: adapter.size for adapter in find_adapters(model)}
    most = setting.options.get("keep_parameters")
    return keep_only(model, choose(record, sizes, setting.options["rule"], setting.keep, most))


def random_without(setting: Setting) -> Prepared:
    """K random adapters among the modules whose names do not match the regular expression `options["without"]`."""
    target = {**setting.target, "exclude_modules": setting.options["without"]}
    return random(replace(setting, target=target, options={}))
