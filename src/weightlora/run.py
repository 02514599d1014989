"""The run directory: what was chosen, how it came about, and the adapter, written whole or not at all."""

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .adapters import unwrap_model
from .engines.distributed import flat_units
from .selector import WeightLora

SELECTION_FORMAT = 1


def save_run(selector: WeightLora, directory: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a run directory: `selection.json`, `history.jsonl`, and `adapter/`, a plain PEFT LoRA checkpoint.

    `history.jsonl` has a line a step (with `phase`, `omega`, `score`) and a line a decision (with `kept`, `ranks`).

    Everything is written beside the directory first and moved into place at the end.

    Args:
        selector: After its decision.
        directory: Created; it may exist if it is empty.
        overwrite: Replace an earlier run; any other directory that is not empty is refused all the same.

    Returns:
        The directory.

    Raises:
        ValueError: If the choice is not final, the directory is not empty and `overwrite` is off, or FSDP1 holds the
            model.
    """
    if selector.phase != "train":
        raise ValueError(
            f"the selection is at step {selector.step_count} of {selector.config.select_steps}: train on, or call "
            "finish() to decide now."
        )
    if flat_units(selector.model):
        raise ValueError("the model is in parts, held by FSDP (version 1): save it with trainer.save_model().")
    directory = Path(directory).resolve()
    check_empty(directory, overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write_json(staging / "selection.json", describe_selection(selector))
        lines = (json.dumps(entry, allow_nan=False) for entry in selector.history)
        (staging / "history.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        model: Any = unwrap_model(selector.model)
        model.save_pretrained(str(staging / "peft"), selected_adapters=[selector.adapter_name])
        named = staging / "peft" / selector.adapter_name  # PEFT's place for an adapter that is not called "default"
        os.replace(named if named.is_dir() else staging / "peft", staging / "adapter")
        shutil.rmtree(staging / "peft", ignore_errors=True)
        staging.chmod(0o755)
        _replace_directory(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def describe_selection(selector: WeightLora) -> dict[str, Any]:
    """The content of `selection.json`: settings, and for every adapter in model order what became of it."""
    live = {adapter.name: adapter for adapter in selector.adapters}
    adapters = [
        {
            "name": name,
            "kind": selector.kinds[name],
            "kept": name in live,
            "score": selector.scores[name],
            "omega": selector.omega[name],
            "rank": live[name].rank if name in live else None,
            "scaling": live[name].scaling if name in live else None,
            "parameters": selector.sizes[name],
        }
        for name in selector.names
    ]
    return {
        "format": SELECTION_FORMAT,
        "adapter_name": selector.adapter_name,
        "config": asdict(selector.config),
        "step": selector.step_count,
        "adapters": adapters,
        "trainable_parameters": {
            "before": sum(selector.sizes.values()),
            "after": sum(adapter.size for adapter in selector.adapters),
        },
        "versions": {name: version(name) for name in ("weightlora", "peft", "torch", "transformers", "accelerate")},
    }


def check_empty(directory: Path, overwrite: bool) -> None:
    """Raise a `ValueError` if the directory may not be written to: it is a file, or it is not empty."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file: give a directory.")
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{directory} is not empty: give another directory, or ask for it to be overwritten.")
    if not (directory / "selection.json").is_file():
        raise ValueError(
            f"{directory} holds no earlier run (no selection.json), so it is not overwritten: give another."
        )


def _replace_directory(new: Path, directory: Path) -> None:
    """Move `new` to `directory`; what was there is put aside first and deleted last."""
    if not directory.exists() or not any(directory.iterdir()):
        os.replace(new, directory)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
    old = aside / directory.name
    try:
        os.replace(directory, old)
        os.replace(new, directory)
    except BaseException:
        if old.exists():
            os.replace(old, directory)  # where this fails too, the old run stays aside, and whole
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
