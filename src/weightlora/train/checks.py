"""Checks of a recipe that need neither its data nor its model."""

import math
import re
from typing import Any

from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..extras import require
from ..files import check_writable
from ..prefix.checks import PREFIX_DROPOUT
from ..values import check_known, parse_number, to_bytes
from ..wording import nearest, shown
from .arguments import ARGUMENTS_OF, Recipe, parse_json
from .methods import IN_BENCHMARKS, Method, Methods
from .settings import MethodArguments
from .tasks import find_task
from .training_checks import check_training

BUDGETS = ("keep_parameters", "keep_step_time", "keep_memory")
"""Arguments that bound the choice, beside K."""

READ_BY = {
    "packing": ("causal-lm",),
    "max_target_length": ("seq2seq",),
    "class_names": ("text-classification", "token-classification", "verbalised"),
    "label_smoothing_factor": ("text-classification", "token-classification", "verbalised", "seq2seq", "causal-lm"),
    **dict.fromkeys(("stride", "max_answer_length", "n_best"), ("question-answering",)),
}
"""Argument -> the families that read it."""

OF_ADAPTERS = {"rank", "alpha", "dropout", "target_modules"}
OF_CACHE = {"prefix_dropout", "max_cache_bytes"}

BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "data": {
        "train_examples": (1, math.inf),
        "eval_examples": (1, math.inf),
        "stride": (0, math.inf),
        "max_answer_length": (1, math.inf),
        "n_best": (1, math.inf),
    },
    "method": {
        "rank": (1, 2**16),
        "alpha": (1, 2**31 - 1),
        "dropout": (0, 0.99),
    },
    "training": {
        "per_device_train_batch_size": (1, 2**31 - 1),
        "per_device_eval_batch_size": (1, 2**31 - 1),
        "gradient_accumulation_steps": (1, 2**31 - 1),
        "max_steps": (-1, 2**31 - 1),
        "num_train_epochs": (0, 2**31 - 1),
        "learning_rate": (0, 1e6),
        "dataloader_num_workers": (0, math.inf),
        "seed": (0, 2**32 - 1),
        "data_seed": (0, 2**32 - 1),
    },
}
"""Group of arguments -> argument -> the smallest and the largest value. An argument that is None is not checked."""


def check_recipe(recipe: Recipe, methods: Methods) -> None:
    """Raise an error for the first setting that cannot be right.

    Raises:
        ConfigError: The method or one of its options is unknown, or a number is out of range.
        DataError: The output directory cannot be written to.
    """
    check_method(recipe.method.method, methods)
    for group, bounds in BOUNDS.items():
        for name, (least, most) in bounds.items():
            _check_number(name, getattr(getattr(recipe, group), name), least, most)
    for name, value in vars(recipe.training).items():
        if isinstance(value, float) and not math.isfinite(value):
            remedy = "give 0 to clip nothing" if name == "max_grad_norm" else "give another"
            raise ConfigError(f"{name}={value} is not a finite number: {remedy}.")
    for name in ("max_steps", "num_train_epochs"):
        if getattr(recipe.training, name) == 0 and (name == "max_steps" or recipe.training.max_steps < 0):
            raise ConfigError(f"{name}=0 makes no training step: give more, or leave it out.")
    for name in () if recipe.data.verbalised else ("prompt", "label_words"):
        if (value := getattr(recipe.data, name)) is not None:
            raise ConfigError(f"{name}={shown(value)} is a setting of --verbalised: drop it, or add --verbalised.")
    _check_loading(recipe)
    _check_smoothing(recipe)
    check_training(recipe.training, recipe.given, here=not recipe.method.dry_run)
    WeightLoraConfig(keep=parse_number(recipe.method.keep), **_budgets_of(recipe.method))  # which checks them
    if (steps := steps_to_select(recipe.method)) is not None:
        WeightLoraConfig(select_steps=steps, selection="random")
    _check_options(recipe.method, methods[recipe.method.method])
    _check_prefix(recipe.method, methods[recipe.method.method])
    check_writable(str(recipe.training.output_dir))


def check_typed(recipe: Recipe, methods: Methods) -> None:
    """Raise a `ConfigError` if an argument of the command line has no effect with the method or the task.

    A recipe file may have such settings: it is for several methods.
    """
    _check_read(recipe)
    arguments = recipe.method
    method = methods.get(arguments.method)
    if method is None or arguments.modules_from is not None:  # other checks say what is wrong
        return
    for name in sorted(method.unused & recipe.typed):
        what = (
            "the choice, and --method {} makes no choice"
            if "keep" in method.unused
            else "methods that choose while training, and --method {} is none of them"
        ).format(arguments.method)
        raise ConfigError(
            f"--{name} {getattr(arguments, name)} is a setting of {what}: drop it, or set --method weightlora."
        )


def _check_read(recipe: Recipe) -> None:
    """Raise a `ConfigError` if an argument of the command line is one of another task, or of an adapter or a cache."""
    task = recipe.data.task
    for name in sorted(recipe.typed & READ_BY.keys()):
        family = "verbalised" if recipe.data.verbalised else find_task(task).family
        if family not in READ_BY[name]:
            raise ConfigError(
                f"--{name} is a setting of {' and '.join(READ_BY[name])}, and --task {task} does not read it: drop it."
            )
    if recipe.method.method == "full" and (given := sorted(recipe.typed & OF_ADAPTERS)):
        raise ConfigError(f"--{given[0]} is a setting of adapters, and --method full has none: drop one of the two.")
    if not recipe.method.cache_prefix and (given := sorted(recipe.typed & OF_CACHE)):
        raise ConfigError(f"--{given[0]} is a setting of the cache: drop it, or add --cache_prefix.")


def _check_loading(recipe: Recipe) -> None:
    """Raise an error if the weights cannot be quantized here. A plan may be for another machine."""
    if not recipe.model.load_in_4bit:
        return
    if (file := recipe.model.gguf_file) is not None:
        raise ConfigError(
            f"load_in_4bit=True does not quantize a GGUF model ({shown(file)}), which Transformers unpacks: leave "
            "load_in_4bit out, or give the original model without gguf_file."
        )
    if not recipe.method.dry_run:
        require("bitsandbytes")


def _check_smoothing(recipe: Recipe) -> None:
    """Raise a `ConfigError` if labels that are no classes are to be smoothed, also by a file of settings."""
    value, task = recipe.training.label_smoothing_factor, recipe.data.task
    if value and task is not None and find_task(task).family not in READ_BY["label_smoothing_factor"]:
        raise ConfigError(f"label_smoothing_factor={value} smooths classes, and --task {task} has none: leave it out.")


def steps_to_select(arguments: MethodArguments) -> int | float | None:
    """T as a number of steps, or as a fraction of the training; None if it is not given."""
    given = arguments.select_steps
    return None if given is None else parse_number(given, "select_steps", "steps (200)")


def options_of(recipe: Recipe) -> dict[str, Any]:
    """`method_options`, and what the arguments say of other budgets than K, and of a list.

    Raises:
        ConfigError: `method_options` is not JSON, or a budget is not a number.
    """
    options: dict[str, Any] = parse_json("method_options", recipe.method.method_options)
    if recipe.method.listed is not None:
        options["listed"] = recipe.method.listed
    return options | _budgets_of(recipe.method)


def amount_of(memory: int | str) -> int | str:
    """An amount of memory as `to_bytes` takes it: an argument and a file hand over bytes as a text, too."""
    return int(memory) if re.fullmatch(r"\d{1,15}", str(memory)) else memory


def _budgets_of(arguments: MethodArguments) -> dict[str, Any]:
    given: dict[str, Any] = {name: value for name in BUDGETS if (value := getattr(arguments, name)) is not None}
    if "keep_memory" in given:
        given["keep_memory"] = amount_of(given["keep_memory"])
    if "keep_parameters" in given:
        given["keep_parameters"] = parse_number(given["keep_parameters"], "keep_parameters", "parameters (100000)")
    return given


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if value is None or least <= value <= most:
        return
    if value < least:
        raise ConfigError(f"{name}={value} is too small: give at least {least}.")
    if value > most:
        raise ConfigError(f"{name}={value} is too large: give at most {most:g}.")
    raise ConfigError(f"{name}={value} is not a number: give one from {least:g} to {most:g}.")


def check_method(method: str, methods: Methods) -> None:
    """Raise a `ConfigError` for a method that the registry does not have."""
    if method in IN_BENCHMARKS and method not in methods:
        raise ConfigError(
            f"method={method} is in the benchmarks of the repository, not in this package: clone the repository, and "
            f"run python -m benchmarks train --method {method} there."
        )
    check_known("method", method, methods)


def _check_options(arguments: MethodArguments, method: Method) -> None:
    for name in BUDGETS:
        if getattr(arguments, name) is not None and name not in method.options:
            what, remedy = "only takes a number of modules", "give --keep"
            if "keep" in method.unused:
                what, remedy = "makes none", "drop it"
            elif "keep_parameters" in method.options:
                what, remedy = "only takes a number of parameters", "give --keep_parameters"
            raise ConfigError(
                f"{name}={getattr(arguments, name)} bounds a choice, and {arguments.method} {what}: {remedy}, or "
                "set --method weightlora."
            )
    if "listed" in method.options and not arguments.listed:
        raise ConfigError("method=listed needs a list: give --listed with names of modules, such as q_proj v_proj.")
    if arguments.listed is not None and "listed" not in method.options:
        raise ConfigError(
            f"listed={shown(arguments.listed)} is the list of the method listed, and {arguments.method} reads none: "
            "drop it, or set --method listed."
        )
    for name in parse_json("method_options", arguments.method_options):
        if name in method.options and ("keep" in method.options or name not in vars(arguments)):
            continue  # `WeightLoraConfig` checks its fields; others are read as arguments, which are checked
        if name in vars(arguments) or name in ARGUMENTS_OF:
            argument = ARGUMENTS_OF.get(name, name)
            raise ConfigError(f"method_options has {name!r}, which is an argument: give --{argument} instead.")
        known = f"it reads {', '.join(sorted(method.options))}" if method.options else "it reads no options"
        raise ConfigError(
            f"method_options has {name!r}, which {arguments.method} does not read"
            f"{nearest(name, method.options) or f': {known}'}."
        )


def _check_prefix(arguments: MethodArguments, method: Method) -> None:
    check_known("prefix_dropout", arguments.prefix_dropout, PREFIX_DROPOUT)
    if arguments.max_cache_bytes is not None:
        to_bytes("max_cache_bytes", amount_of(arguments.max_cache_bytes))
    if arguments.cache_prefix and not method.adapts:
        raise ConfigError(f"cache_prefix needs frozen blocks, and {arguments.method} trains all: drop one of the two.")
