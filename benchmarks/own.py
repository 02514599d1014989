"""A user's own comparison: a model, a file of labelled texts and a list of methods become experiments like ours."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weightlora.tasks.local import load_local
from weightlora.train.methods import METHODS

__all__ = ["write_comparison"]


def write_comparison(root: Path, model: str, data: Path, methods: Sequence[str], settings: dict[str, Any]) -> str:
    """Write `<root>/<task>/task.json` and a file a method, the task being named after the data file.

    Args:
        root: Folder of the experiments.
        model: A directory or a hub id that `AutoModelForSequenceClassification` loads.
        data: JSON Lines, a text and a label a line.
        methods: Names in `METHODS`.
        settings: More settings of an experiment, `text_column` and `label_column` among them.

    Returns:
        The task.

    Raises:
        ValueError: If a method is unknown, the data is malformed, or another comparison has this place.
    """
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"method {method!r} is unknown: choose from {', '.join(METHODS)}.")
    task = load_local(data, settings["text_column"], settings["label_column"]).name
    directory = root / task
    shared = {"model": model, "data": str(data.resolve()), "device": "auto", **settings}
    _write_once(directory / "task.json", shared)
    for method in methods:
        _write_once(directory / f"{method}.json", {"method": method})
    return task


def _write_once(path: Path, content: dict[str, Any]) -> None:
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in there.keys() | content.keys() if there.get(key) != content.get(key))
        if differing:
            raise ValueError(
                f"{path} describes another comparison (it differs in {', '.join(differing)}): give another --root, "
                "or delete that folder."
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
