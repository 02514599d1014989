"""A comparison from the arguments of a command."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..train import parse
from ..train.checks import BUDGETS, check_method
from ..train.data import files_of
from ..train.methods import METHODS
from ..train.tasks import find_task
from .comparison import MOST_SEEDS, OF_ALL, SETTINGS, Comparison, read_comparison
from .runs import fingerprint

METHODS_BY_DEFAULT = ("lora", "random", "weightlora")
RATES = (5e-4, 1e-3, 2e-3)
OURS = {"method": "--methods", "seed": "--seeds", "data_seed": "--seeds", "resume_from_checkpoint": None}
"""Arguments of `weightlora train` that a comparison sets itself -> what to give in their place."""
OF_THE_CALL = ("output_dir", "disable_tqdm", "dry_run")
"""Arguments that are no settings of the runs."""
PLAIN = {"save_strategy": "no", "report_to": "none", "logging_strategy": "no"}
FILES = ("train_file", "validation_file")
OF_MODELS = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.jinja")
"""Files of a directory with a model or a tokenizer."""


def make_comparison(
    directory: Path,
    methods: Sequence[str],
    seeds: int,
    rates: Sequence[float] | None,
    arguments: Sequence[str],
) -> Comparison:
    """A comparison from the arguments of `weightlora train`.

    Args:
        directory: Where results go.
        methods: Keys of the method registry.
        seeds: Number of seeds.
        rates: Learning rates to choose from. None: the one in `arguments`, else `RATES`.
        arguments: All other arguments, recipe files among them.

    Raises:
        ConfigError: If a method or an argument is unknown, a rate is not a positive number, there is no seed, or an
            argument is one that a comparison sets itself.
        DataError: If a data file is missing, or the directory has a comparison that cannot be read.
    """
    if not methods:
        raise ConfigError(f"--methods is empty: choose from {', '.join(METHODS)}.")
    for method in methods:
        check_method(method, METHODS)
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} is too small: give at least 1, and 3 or more for an interval.")
    if seeds > MOST_SEEDS:
        raise ConfigError(f"seeds={seeds} is too large: give at most {MOST_SEEDS}.")
    given = {method: _given(method, arguments) for method in dict.fromkeys([*methods, "lora"])}
    if "listed" in given["lora"] and "listed" not in methods:
        raise ConfigError("--listed is the list of the method listed: add it to --methods.")
    for method, settings in given.items():
        if "listed" not in METHODS[method].options:
            settings.pop("listed", None)
    grids = {method: _grid(rates, settings) for method, settings in given.items()}
    for settings in given.values():
        settings.pop("learning_rate", None)
    first = given[methods[0]]
    data = {name: fingerprint(path) for name, path in data_files(first).items()}
    shared = {name: value for name, value in given["lora"].items() if name != "method"}
    if rates is not None:
        shared["learning_rates"] = list(grids["lora"])
    earlier = read_comparison(directory) if (directory / SETTINGS).is_file() else None  # this one adds to it
    every = METHODS.keys() & {*methods, *(() if earlier is None else earlier.methods)}
    chosen = _without_budgets({method: given[method] for method in dict.fromkeys(methods)}, every)
    grids = {method: grids[method] for method in chosen}
    tunes = any(len(several) > 1 for several in grids.values())
    if earlier is not None and not tunes:  # a method at one rate is added to any rates
        tunes = earlier.tunes
        if "learning_rates" in earlier.shared:
            shared.setdefault("learning_rates", earlier.shared["learning_rates"])
    return Comparison(directory, chosen, grids, seeds, tunes, data, shared)


def _without_budgets(given: Mapping[str, dict[str, Any]], every: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The arguments by method, without a budget where all modules are trained and one of `every` has that budget."""
    options = {name for method in every for name in METHODS[method].options}
    chosen = [name for name in BUDGETS if name in options]
    return {
        method: {name: value for name, value in settings.items() if not (method in OF_ALL and name in chosen)}
        for method, settings in given.items()
    }


def _given(method: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The arguments of one method, those of recipe files included, as plain values."""
    typed = any(text.partition("=")[0] == "--method" for text in arguments)  # a file of settings may have one
    recipe = parse([*arguments, "--method", method, "--output_dir", "."])
    given = {name: value for name, value in recipe.given.items() if name not in OF_THE_CALL}
    for name, instead in OURS.items():
        if name in given and (name != "method" or typed):
            remedy = f"give {instead}" if instead else "run the same command again, which continues"
            raise ConfigError(f"--{name} is set by the comparison itself: {remedy}.")
    if given.get("load_best_model_at_end"):
        raise ConfigError("--load_best_model_at_end needs checkpoints, and a comparison keeps none: leave it out.")
    if given.get("modules_from"):
        raise ConfigError(
            "--modules_from gives its modules to the method lora, which trains all modules in a comparison: give them "
            "by --listed and --methods listed, as a regular expression (weightlora show RUN --format regex)."
        )
    given.setdefault("task", "text-classification")
    for name in FILES:
        if (value := given.get(name)) and not os.path.isfile(value):
            raise DataError(f"--{name} {value} is not a file: give JSON Lines, JSON, CSV, TSV or Parquet.")
    for name in (*FILES, "model", "tokenizer", "dataset"):
        if (value := given.get(name)) and (os.path.isfile(value) or os.path.isdir(value)):
            given[name] = str(Path(value).resolve())
    return {**PLAIN, **given}


def data_files(given: Mapping[str, Any]) -> dict[str, Path]:
    """The files that a comparison reads: argument, or name in the directory of the data set or the model -> path."""
    found = {name: Path(given[name]) for name in FILES if given.get(name)}
    task, directory = find_task(given["task"]), Path(given.get("dataset") or "")
    if given.get("dataset") and os.path.isdir(directory):
        for split in ("train", *task.evaluation):
            files = files_of(directory, given.get("dataset_config") or task.config, split)
            found |= {str(file.relative_to(directory)): file for file in files}
    for name in ("model", "tokenizer"):
        if given.get(name) and os.path.isdir(folder := Path(given[name])):
            found |= {f"{name}/{file.name}": file for kind in OF_MODELS for file in sorted(folder.glob(kind))}
    file = Path(given["model"], given["gguf_file"]) if given.get("model") and given.get("gguf_file") else None
    return found | ({"gguf_file": file} if file is not None and file.is_file() else {})


def _grid(rates: Sequence[float] | None, given: Mapping[str, Any]) -> tuple[float, ...]:
    if rates is None:
        rates = [given["learning_rate"]] if "learning_rate" in given else RATES
    elif "learning_rate" in given:
        raise ConfigError("--learning_rate and --learning_rates are both given: give one of them.")
    if not rates:
        raise ConfigError("--learning_rates is empty: give at least one, such as 1e-3.")
    for rate in rates:
        if not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"the learning rate {rate:g} is not a positive number: give one such as 1e-3.")
    named: dict[str, float] = {}
    for rate in map(float, rates):
        if (other := named.setdefault(f"{rate:g}", rate)) != rate:
            raise ConfigError(f"the learning rates {other!r} and {rate!r} are nearly equal: leave one of them out.")
    return tuple(named.values())
