"""A sweep as data: one file lists recipes, methods with their sizes, and seeds."""

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightlora.errors import ConfigError
from weightlora.files import write_json
from weightlora.run import RESULT
from weightlora.train.reading import check_name, read_yaml
from weightlora.train.result import Result
from weightlora.wording import shown

from .experiments import Run

KEYS = {"columns", "grid", "seeds", "with"}
SETTINGS = "settings.json"
SHORT = {"rank": "r", "keep": "k"}
MOST_RUNS = 100_000


def plan_sweep(
    path: Path,
    root: Path,
    overrides: Mapping[str, Any] | None = None,
    tasks: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    seeds: int | None = None,
) -> list[Run]:
    """Every run of a sweep file, seed by seed.

    The file has `columns`, a name and a recipe each (`config`, relative to the file, and settings that win over it);
    `grid`, a list of mappings whose lists are multiplied out (`method`, and others such as `rank` and `keep`);
    `seeds`; and `with`, settings of all runs.

    Args:
        path: The sweep file.
        root: Where results go.
        overrides: Settings that win over everything in the files but the grid.
        tasks: Only these columns.
        labels: Only these labels, `<method>-r<rank>-k<keep>`, or all of these methods.
        seeds: Only the first so many seeds.

    Raises:
        ConfigError: The file is missing, has an unknown key, names a recipe or a setting that does not exist, or
            `overrides` has a key of the grid.
    """
    content, resolve = _read(path), _Resolver()
    cells = _cells(content["grid"])
    every = [label_of(cell) for cell in cells]
    if len(set(every)) < len(every):
        twice = next(label for label in every if every.count(label) > 1)
        raise ConfigError(f"two cells of the grid of {path} have the label {twice}: take one of them out.")
    runs = []
    for task, column in _chosen(content["columns"], tasks).items():
        for cell, label in zip(cells, every, strict=True):
            if labels and label not in labels and cell["method"] not in labels:
                continue
            if fixed := sorted(cell.keys() & (overrides or {}).keys()):
                raise ConfigError(
                    f"{fixed[0]} varies in the grid of {path}, so it cannot be the same in all runs: leave it out."
                )
            shared = {**content["with"], **{k: v for k, v in column.items() if k != "config"}}
            settings = resolve(path.parent / column["config"], {**shared, **cell, **(overrides or {})})
            experiment = {"task": task, "label": label, "method": cell["method"], "settings": settings}
            place = root / task / "results" / label
            runs += [Run(experiment, seed, place / f"seed-{seed}.json") for seed in content["seeds"][:seeds]]
    if not runs:
        raise ConfigError(f"{path} has no run of {', '.join(labels or [])}: choose one of its methods.")
    order = {seed: i for i, seed in enumerate(content["seeds"])}
    return sorted(runs, key=lambda run: order[run.seed])


def label_of(cell: Mapping[str, Any]) -> str:
    """The label of a cell, such as `weightlora-paper-r8-k10`. Only rank and keep are abbreviated."""
    label = "-".join([cell["method"], *(f"{SHORT.get(k, k)}{v}" for k, v in cell.items() if k != "method")])
    return check_name(label, "the grid makes the label")


def _read(path: Path) -> dict[str, Any]:
    """The content of a sweep file, with every part of the type that it must have."""
    if not os.path.isfile(path):
        raise ConfigError(f"the sweep {path} is not a file: give the path of a sweep file.")
    content = {"with": {}, **read_yaml(path, f"the sweep {path}")}
    if content.keys() != KEYS:
        raise ConfigError(
            f"the sweep {path} has other keys than columns, grid, seeds and with: the first three are required."
        )
    for key, (fits, rule) in RULES.items():
        if not fits(content[key]):
            raise ConfigError(f"the sweep {path} has {key}={shown(content[key])}, which must be {rule}.")
    for name in content["columns"]:
        check_name(name, f"the sweep {path} has the column")
    cells = sum(math.prod(len(v) for v in block.values() if isinstance(v, list)) for block in content["grid"])
    if (count := cells * len(content["columns"]) * len(content["seeds"])) > MOST_RUNS:
        raise ConfigError(f"the sweep {path} has {count:,} runs, and the most is {MOST_RUNS:,}: split it.")
    return content


def _are_columns(value: Any) -> bool:
    columns = list(value.values()) if isinstance(value, dict) else []
    return bool(columns) and all(isinstance(column, dict) and _is_text(column.get("config")) for column in columns)


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_block, value))


def _is_block(value: Any) -> bool:
    if not isinstance(value, dict) or not all(map(_is_text, value)):
        return False
    methods = value.get("method")
    return bool(methods) and all(map(_is_text, methods if isinstance(methods, list) else [methods]))


def _are_seeds(value: Any) -> bool:
    numbers = value if isinstance(value, list) else []
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**32 for n in numbers)
    return bool(numbers) and whole and len(set(numbers)) == len(numbers)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "columns": (_are_columns, "a mapping of names to mappings, each with a recipe under `config`"),
    "grid": (_is_grid, "a list of mappings, each with `method`, a name or a list of names"),
    "seeds": (_are_seeds, "a list of different whole numbers from 0 to 4294967295"),
    "with": (lambda value: isinstance(value, dict), "a mapping of settings"),
}
"""Key of a sweep file -> whether a value fits, and what it must be."""


def _chosen(columns: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    for name in names or ():
        if name not in columns:
            raise ConfigError(f"column {name!r} is unknown: there are {', '.join(columns)}.")
    return {name: value for name, value in columns.items() if not names or name in names}


def _cells(grid: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    cells = []
    for block in grid:
        values = [value if isinstance(value, list) else [value] for value in block.values()]
        cells += [dict(zip(block, combination, strict=True)) for combination in itertools.product(*values)]
    return cells


class _Resolver:
    """Gives all settings of a run, including those of the recipe. A recipe is read once per method."""

    def __init__(self) -> None:
        from weightlora.train.arguments import make_parser

        self._known = {action.dest for action in make_parser()._actions} - {"help"}
        self._files: dict[tuple[Path, str], dict[str, Any]] = {}

    def __call__(self, recipe: Path, settings: dict[str, Any]) -> dict[str, Any]:
        from weightlora.train.arguments import read_files

        if unknown := sorted(settings.keys() - self._known, key=str):
            raise ConfigError(f"{unknown[0]!r} is not a setting of a recipe: weightlora train --help lists them.")
        key = (recipe, settings["method"])
        if key not in self._files:
            self._files[key] = read_files([recipe], settings["method"], self._known)
        return {**self._files[key], **settings}


def run_recipe(experiment: Mapping[str, Any], seed: int, output: Path) -> Result:
    """Train one run of a sweep. Its run directory is beside the result; a run that was stopped continues.

    Args:
        experiment: As `plan_sweep` makes it.
        seed: Seed of the run.
        output: File of the result.

    Raises:
        WeightLoraError: As `weightlora train`.
    """
    from weightlora.train import fit, parse, prepare
    from weightlora.train.arguments import as_arguments

    from .methods import ALL_METHODS

    folder = output.with_suffix("")
    resume = _same_run(folder, experiment) and any(folder.glob("checkpoint-*"))
    if not resume and folder.exists():
        shutil.rmtree(folder)
    write_json(folder / SETTINGS, dict(experiment))
    settings = {**experiment["settings"], "seed": seed, "output_dir": str(folder), "disable_tqdm": True}
    if resume:
        settings["resume_from_checkpoint"] = "true"
    result = fit(prepare(parse(as_arguments(settings)), ALL_METHODS))
    return replace(result, task=experiment["task"], label=experiment["label"], settings=dict(experiment))


def _same_run(folder: Path, experiment: Mapping[str, Any]) -> bool:
    """Whether the folder belongs to an unfinished run with these settings."""
    try:
        there = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return there == json.loads(json.dumps(experiment)) and not (folder / RESULT).exists()
