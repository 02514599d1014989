"""What a comparison is: methods, seeds, learning rates, the arguments that all runs share, and the file of these."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import check_writable, read_json, write_json
from ..train import parse, prepare
from ..train.arguments import as_arguments
from ..train.checks import BUDGETS
from ..train.plan import Job
from ..train.reading import check_name
from ..train.result import fits
from ..train.targets import ON_A_LIST
from ..wording import shown
from .rows import make_for
from .runs import PLACES, Run

SETTINGS = "settings.json"
FORMAT = 1
MOST_SEEDS = 10_000
OF_ALL = (*ON_A_LIST, "full")
"""Methods that train all modules. A budget is one of the others' choice, and does not concern them."""
PARTS = {"seeds": int, "data": dict[str, str], "shared": dict[str, Any], "methods": dict[str, dict[str, Any]]}
PARTS_OF_METHOD = {"learning_rates": list[Any], "settings": dict[str, Any]}
"""What the file has beside the format, and its entry of a method -> the type of each part."""


@dataclass(frozen=True)
class Comparison:
    """Methods x seeds on the same model and data.

    Attributes:
        directory: Where results and the summary go.
        settings: Method -> its arguments for `weightlora train`, without a rate and a seed.
        rates: Method -> the learning rates to choose from. A method with one rate is not tuned.
        seeds: Number of seeds: 0 to `seeds - 1`.
        tunes: Whether some method of the directory has several rates, so that a validation split is needed.
        data: Argument, or name in the directory of a data set or a model -> SHA-256 of the file.
        shared: The arguments that do not depend on the method. Two comparisons in one directory must agree in them.
    """

    directory: Path
    settings: Mapping[str, Mapping[str, Any]]
    rates: Mapping[str, tuple[float, ...]]
    seeds: int
    tunes: bool
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

    def tuning_runs(self) -> list[Run]:
        """One run per method and rate, at seed 0, on the validation split."""
        return [
            self._run(method, 0, rates[place], "validation")
            for place in range(max(map(len, self.rates.values())))
            for method, rates in self.rates.items()
            if len(rates) > 1 and place < len(rates)
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

    def jobs(self) -> Iterator[tuple[str, Job]]:
        """Check everything that can be checked without weights, and prepare each method.

        Raises:
            WeightLoraError: Something is wrong with the settings, the data or the model.
        """
        make = make_for("test", self.tunes)
        for method, settings in self.settings.items():
            given = {**settings, "learning_rate": self.first_rates[method], "output_dir": str(self.directory)}
            yield method, prepare(parse(as_arguments(given)), make=make)

    def claim(self, write: bool = True) -> None:
        """Write `settings.json` into the directory; more methods and more seeds are added to those that are there.

        Args:
            write: False only checks.

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
            mine["shared"] = there["shared"] | mine["shared"]
            mine["seeds"] = max(there["seeds"], self.seeds)
        if mine != there and write:
            write_json(path, mine)

    def _check_same(self, there: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
        pairs = [(there["data"], mine["data"]), (there["shared"], mine["shared"])]
        for name in there["methods"].keys() & mine["methods"].keys():
            entries = there["methods"][name], mine["methods"][name]
            one, other = ({**entry["settings"], "learning_rates": entry["learning_rates"]} for entry in entries)
            pairs.append((one, other))
        differing = {key for one, other in pairs for key in {*one, *other} if one.get(key) != other.get(key)}
        if self.tunes and not any(len(entry["learning_rates"]) > 1 for entry in there["methods"].values()):
            differing.add("learning_rates")  # its results may have been trained on what would be the validation split
        for part in (there, mine):
            if part["methods"].keys() <= {*OF_ALL}:
                differing -= {*BUDGETS} - part["shared"].keys()
        if differing:
            same = f"{_same_rates(there, mine)}, or " if differing == {"learning_rates"} else ""
            raise DataError(
                f"{self.directory} has another comparison, which differs in {', '.join(sorted(differing))}: {same}"
                "give another --output_dir, or delete that directory."
            )


def _same_rates(there: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """What to do to have the learning rates of a comparison; those of a method that has others there come first."""
    for name, entry in there["methods"].items():
        rates = entry["learning_rates"]
        if len(rates) == 1 and mine["methods"].get(name, entry)["learning_rates"] != rates:
            return f"give --learning_rate {rates[0]!r}{f' with --methods {name}' if len(mine['methods']) > 1 else ''}"
    if rates := there["shared"].get("learning_rates"):
        return f"give --learning_rates {','.join(map(repr, rates))}"
    if any(len(entry["learning_rates"]) > 1 for entry in there["methods"].values()):
        return "leave out --learning_rate and --learning_rates"
    return "give one --learning_rate"


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
    tunes = any(len(several) > 1 for several in rates.values())
    return Comparison(directory, settings, rates, there["seeds"], tunes, there["data"], there["shared"])


def read_settings(path: Path) -> dict[str, Any]:
    """The content of the file, with every part of the type that it must have.

    Raises:
        DataError: It cannot be read, has another format, or was changed.
        ConfigError: A method has a name that leads out of the directory.
    """
    content: dict[str, Any] = read_json(path, "give another --output_dir")
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise DataError(f"{path} has format {shown(found)}, and this version reads {FORMAT}: give another directory.")
    if not _is_whole(content):
        raise DataError(f"{path} was changed, or is not whole: give another --output_dir.")
    for name in content["methods"]:
        check_name(name, f"{path} has the method")
    return content


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Whether each part of the settings has its type."""
    return (
        all(fits(content.get(name), kind) for name, kind in PARTS.items())
        and 1 <= content["seeds"] <= MOST_SEEDS
        and bool(content["methods"])
        and all(map(_is_entry, content["methods"].values()))
    )


def _is_entry(entry: Mapping[str, Any]) -> bool:
    return (
        all(fits(entry.get(name), kind) for name, kind in PARTS_OF_METHOD.items())
        and bool(entry["learning_rates"])
        and all(isinstance(rate, float) and 0 < rate < math.inf for rate in entry["learning_rates"])
        and isinstance(entry["settings"].get("task"), str)
    )
