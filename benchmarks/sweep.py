"""A sweep is data: recipes, methods with their sizes, and seeds in one file; its runs are runs of the benchmark."""

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .experiments import Run
from .results import RESULT_FORMAT

__all__ = ["plan_sweep", "run_recipe"]

KEYS = {"columns", "grid", "seeds", "with"}
SETTINGS = "settings.json"
SHORT = {"rank": "r", "keep": "k"}


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
        ValueError: The file is missing, has an unknown key, names a recipe or a setting that is none, or `overrides`
            has a key of the grid.
    """
    content, resolve = _read(path), _Resolver()
    runs = []
    for task, column in _chosen(content["columns"], tasks, "column").items():
        for cell in _cells(content["grid"]):
            label = label_of(cell)
            if labels and label not in labels and cell["method"] not in labels:
                continue
            if fixed := sorted(cell.keys() & (overrides or {}).keys()):
                raise ValueError(f"{fixed[0]} is a part of the grid of {path}: it cannot be one for all runs.")
            shared = {**content.get("with", {}), **{k: v for k, v in column.items() if k != "config"}}
            settings = resolve(path.parent / column["config"], {**shared, **cell, **(overrides or {})})
            experiment = {"task": task, "label": label, "method": cell["method"], "settings": settings}
            place = root / task / "results" / label
            runs += [Run(experiment, seed, place / f"seed-{seed}.json") for seed in content["seeds"][:seeds]]
    if not runs:
        raise ValueError(f"{path} has no run of {', '.join(labels or [])}: its methods are others.")
    order = {seed: i for i, seed in enumerate(content["seeds"])}
    return sorted(runs, key=lambda run: order[run.seed])


def label_of(cell: Mapping[str, Any]) -> str:
    """`weightlora-paper-r8-k10`; settings without a letter of their own by their name."""
    return "-".join([cell["method"], *(f"{SHORT.get(k, k)}{v}" for k, v in cell.items() if k != "method")])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"the sweep {path} is no file.")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not {"columns", "grid", "seeds"} <= content.keys() <= KEYS:
        raise ValueError(f"the sweep {path} needs columns, grid and seeds, and may have with: it has something else.")
    return content


def _chosen(columns: Mapping[str, Any], names: Sequence[str] | None, what: str) -> dict[str, Any]:
    for name in names or ():
        if name not in columns:
            raise ValueError(f"{what} {name!r} is unknown: there are {', '.join(columns)}.")
    return {name: value for name, value in columns.items() if not names or name in names}


def _cells(grid: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    cells = []
    for block in grid:
        values = [value if isinstance(value, list) else [value] for value in block.values()]
        cells += [dict(zip(block, combination, strict=True)) for combination in itertools.product(*values)]
    return cells


class _Resolver:
    """All settings of a run, the recipe's included, so that a result is of these and no others.

    A grid asks for the same files many times; each is read once for each method.
    """

    def __init__(self) -> None:
        from weightlora.train.arguments import make_parser

        self._known = {action.dest for action in make_parser()._actions} - {"help"}
        self._files: dict[tuple[Path, str], dict[str, Any]] = {}

    def __call__(self, recipe: Path, settings: dict[str, Any]) -> dict[str, Any]:
        from weightlora.train.arguments import read_files

        if unknown := sorted(settings.keys() - self._known):
            raise ValueError(f"{unknown[0]!r} is no setting of a recipe: weightlora train --help lists them.")
        key = (recipe, settings["method"])
        if key not in self._files:
            self._files[key] = read_files([recipe], settings["method"], self._known)
        return {**self._files[key], **settings}


def run_recipe(experiment: Mapping[str, Any], seed: int, output: Path) -> dict[str, Any]:
    """One run of a sweep; the adapter stays in a folder beside the result. One that was cut short goes on.

    Returns:
        The content of the result file.

    Raises:
        ValueError: As `weightlora train`.
    """
    from weightlora.train.running import train

    from weightlora.train.arguments import as_arguments, parse
    from weightlora.train.plan import prepare

    folder = output.with_suffix("")
    resume = _same_run(folder, experiment) and any(folder.glob("checkpoint-*"))
    if not resume and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(json.dumps(experiment), encoding="utf-8")
    settings = {**experiment["settings"], "seed": seed, "output_dir": str(folder), "disable_tqdm": True}
    if resume:
        settings["resume_from_checkpoint"] = "true"
    results = train(prepare(parse(as_arguments(settings))))
    first = next(iter(results["metrics"].values()))
    metrics = {name: value for name, value in first.items() if name != "loss"}
    for split, found in list(results["metrics"].items())[1:]:
        metrics |= {f"{name}, {split.rpartition('_')[2]}": v for name, v in found.items() if name != "loss"}
    return {
        "format": RESULT_FORMAT,
        "task": experiment["task"],
        "method": experiment["label"],
        "seed": seed,
        "experiment": dict(experiment),
        "loss": first["loss"],
        "metric": results["metric"],
        "metrics": metrics,
        "trainable_parameters": results["trainable_parameters"],
        "adapters": results["adapters"],
        "kept": results["kept"],
        "wall_seconds": results["wall_seconds"],
        "peak_memory_bytes": results["peak_memory_bytes"],
        "versions": results["versions"],
        "machine": results["machine"],
    }


def _same_run(folder: Path, experiment: Mapping[str, Any]) -> bool:
    """Whether the folder is of an unfinished run of these settings."""
    try:
        there = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return there == json.loads(json.dumps(experiment)) and not (folder / "results.json").exists()
