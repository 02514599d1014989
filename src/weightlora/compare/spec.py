"""What a comparison is: methods, seeds, learning rates, and the arguments that all runs share."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import check_writable, write_json
from ..train import parse, prepare
from ..train.arguments import as_arguments
from ..train.checks import BUDGETS
from ..train.chosen import ON_A_LIST
from ..train.data import files_of
from ..train.methods import IN_BENCHMARKS, METHODS
from ..train.plan import Plan
from ..train.tasks import find_task
from ..wording import nearest
from .rows import make_for
from .runs import PLACES, Run, fingerprint
from .settings import FORMAT, MOST_SEEDS, SETTINGS, read_settings

__all__ = [
    "METHODS_BY_DEFAULT",
    "RATES",
    "SETTINGS",
    "Comparison",
    "check_methods",
    "make_comparison",
    "read_comparison",
]

METHODS_BY_DEFAULT = ("lora", "random", "weightlora")
RATES = (5e-4, 1e-3, 2e-3)
OURS = {"method": "--methods", "seed": "--seeds", "data_seed": "--seeds", "resume_from_checkpoint": None}
"""Arguments of `weightlora train` that a comparison sets itself -> what to give in their place."""
OF_THE_CALL = ("output_dir", "disable_tqdm", "dry_run")
"""Arguments that are no settings of the runs."""
OF_ALL = (*ON_A_LIST, "full")
"""Methods that train all modules. A budget is one of the others' choice, and does not concern them."""
PLAIN = {"save_strategy": "no", "report_to": "none", "logging_strategy": "no"}
FILES = ("train_file", "validation_file", "gguf_file")
OF_MODELS = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")
"""Files of a directory with a model or a tokenizer."""


@dataclass(frozen=True)
class Comparison:
    """Methods x seeds on the same model and data.

    Attributes:
        directory: Where results and the summary go.
        settings: Method -> its arguments for `weightlora train`, without a rate and a seed.
        rates: Method -> the learning rates to choose from. A method with one rate is not tuned.
        seeds: Number of seeds: 0 to `seeds - 1`.
        data: Argument, or name in the directory of a data set or a model -> SHA-256 of the file.
        shared: The arguments that do not depend on the method. Two comparisons in one directory must agree in them.
    """

    directory: Path
    settings: Mapping[str, Mapping[str, Any]]
    rates: Mapping[str, tuple[float, ...]]
    seeds: int
    data: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        return list(self.settings)

    @property
    def task(self) -> str:
        return str(self.settings[self.methods[0]]["task"])

    @property
    def model(self) -> str:
        return str(self.settings[self.methods[0]].get("model"))

    @property
    def first_rates(self) -> dict[str, float]:
        """Method -> the first of its rates, where it does not matter which one is chosen."""
        return {method: rates[0] for method, rates in self.rates.items()}

    @cached_property
    def tunes(self) -> bool:
        """Whether some method has several rates."""
        return any(len(rates) > 1 for rates in self.rates.values())

    def tuning_runs(self) -> list[Run]:
        """One run per method and rate, at seed 0, on the validation split."""
        return [
            self._run(method, 0, rate, "validation")
            for place in range(max(map(len, self.rates.values())))
            for method, rates in self.rates.items()
            if len(rates) > 1
            for rate in rates[place : place + 1]
        ]

    def runs(self, rates: Mapping[str, float]) -> list[Run]:
        """One run per method and seed on the test split, seed by seed.

        Args:
            rates: Method -> the rate that was chosen. A method that is missing does not run.
        """
        return [
            self._run(method, seed, rates[method], "test")
            for seed in range(self.seeds)
            for method in self.methods
            if method in rates
        ]

    def _run(self, method: str, seed: int, rate: float, split: str) -> Run:
        name = f"lr-{rate:g}.json" if split == "validation" else f"seed-{seed}.json"
        place = self.directory / PLACES[split] / method / name
        settings = {**self.settings[method], "learning_rate": rate}
        return Run(method, seed, split, self.tunes, settings, self.data, place)

    def plans(self) -> dict[str, Plan]:
        """Check everything that can be checked without weights, and plan each method.

        Raises:
            WeightLoraError: Something is wrong with the settings, the data or the model.
        """
        make = make_for("test", self.tunes)
        made = {}
        for method, settings in self.settings.items():
            given = {**settings, "learning_rate": self.first_rates[method], "output_dir": str(self.directory)}
            made[method] = prepare(parse(as_arguments(given)), make=make).plan
        return made

    def claim(self) -> None:
        """Write `settings.json` into the directory; more methods and more seeds are added to those that are there.

        Raises:
            DataError: If the directory has a comparison with other settings, or other files.
        """
        path = self.directory / SETTINGS
        check_writable(self.directory)
        there = read_settings(path) if path.exists() else None
        if there is None and self.directory.is_dir() and any(self.directory.iterdir()):
            raise DataError(f"{self.directory} is not empty and has no {SETTINGS}: give another --output_dir.")
        mine = {
            "format": FORMAT,
            "seeds": self.seeds,
            "data": dict(self.data),
            "shared": dict(self.shared),
            "methods": {
                name: {"learning_rates": list(self.rates[name]), "settings": dict(self.settings[name])}
                for name in self.methods
            },
        }
        if there is not None:
            self._check_same(there, mine)
            mine["methods"] = there["methods"] | mine["methods"]
            mine["seeds"] = max(there["seeds"], self.seeds)
        if mine != there:
            write_json(path, mine)

    def _check_same(self, there: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
        pairs = [(there["data"], mine["data"]), (there["shared"], mine["shared"])]
        for name in there["methods"].keys() & mine["methods"].keys():
            one, other = there["methods"][name], mine["methods"][name]
            pairs.append((one["settings"], other["settings"]))
            rates = [{"learning_rates": entry["learning_rates"]} for entry in (one, other)]
            pairs.append((rates[0], rates[1]))
        differing = {key for one, other in pairs for key in {*one, *other} if one.get(key) != other.get(key)}
        if differing:
            raise DataError(
                f"{self.directory} has another comparison, which differs in {', '.join(sorted(differing))}: give "
                "another --output_dir, or delete that directory."
            )


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
        DataError: If a data file is missing.
    """
    check_methods(methods)
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} is too small: give at least 1, and 3 or more for an interval.")
    if seeds > MOST_SEEDS:
        raise ConfigError(f"seeds={seeds} is too large: give at most {MOST_SEEDS}.")
    given = {method: _given(method, arguments) for method in dict.fromkeys([*methods, "lora"])}
    grids = {method: _grid(rates, settings) for method, settings in given.items()}
    for settings in given.values():
        settings.pop("learning_rate", None)
    first = given[methods[0]]
    data = {name: fingerprint(path) for name, path in _data_files(first).items()}
    shared = {name: value for name, value in given["lora"].items() if name != "method"}
    if rates is not None:
        shared["learning_rates"] = list(grids["lora"])
    chosen = _without_budgets({method: given[method] for method in dict.fromkeys(methods)})
    return Comparison(directory, chosen, {method: grids[method] for method in chosen}, seeds, data, shared)


def _without_budgets(given: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The arguments by method, without a budget where all modules are trained and another method has that budget."""
    chosen = [name for name in BUDGETS if any(name in METHODS[method].options for method in given)]
    return {
        method: {name: value for name, value in settings.items() if not (method in OF_ALL and name in chosen)}
        for method, settings in given.items()
    }


def check_methods(methods: Sequence[str]) -> None:
    """Raise a `ConfigError` for a method that the registry does not have, and for an empty list."""
    if not methods:
        raise ConfigError(f"--methods is empty: choose from {', '.join(METHODS)}.")
    for method in methods:
        if method in IN_BENCHMARKS:
            raise ConfigError(
                f"method {method!r} belongs to the benchmarks of the repository, and `weightlora compare` does not "
                f"have it: choose from {', '.join(METHODS)}."
            )
        if method not in METHODS:
            hint = nearest(method, METHODS) or f": choose from {', '.join(METHODS)}"
            raise ConfigError(f"method {method!r} is unknown{hint}.")


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
    given.setdefault("task", "text-classification")
    for name in FILES:
        if (value := given.get(name)) and not os.path.isfile(value):
            kinds = "a GGUF file" if name == "gguf_file" else "JSON Lines, JSON, CSV, TSV or Parquet"
            raise DataError(f"--{name} {value} is not a file: give {kinds}.")
    for name in (*FILES, "model", "tokenizer", "dataset"):
        if (value := given.get(name)) and (os.path.isfile(value) or os.path.isdir(value)):
            given[name] = str(Path(value).resolve())
    return {**PLAIN, **given}


def _data_files(given: Mapping[str, Any]) -> dict[str, Path]:
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
    return found


def _grid(rates: Sequence[float] | None, given: Mapping[str, Any]) -> tuple[float, ...]:
    if rates is None:
        rates = [given["learning_rate"]] if "learning_rate" in given else RATES
    elif "learning_rate" in given:
        raise ConfigError("--learning_rate and --learning_rates are both given: give one of them.")
    for rate in rates:
        if not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"the learning rate {rate:g} is not a positive number: give one such as 1e-3.")
    return tuple(dict.fromkeys(float(rate) for rate in rates))


def read_comparison(directory: Path) -> Comparison:
    """The comparison that a directory has.

    Raises:
        DataError: If there is none.
    """
    if not (directory / SETTINGS).is_file():
        raise DataError(f"{directory} has no comparison ({SETTINGS} is missing): give the --output_dir of one.")
    there = read_settings(directory / SETTINGS)
    settings = {name: entry["settings"] for name, entry in there["methods"].items()}
    rates = {name: tuple(entry["learning_rates"]) for name, entry in there["methods"].items()}
    return Comparison(directory, settings, rates, there["seeds"], there["data"], there["shared"])
