"""A text-classification file of the user's: JSON Lines, a text and a label a line."""

import json
import os
from pathlib import Path
from typing import Any

from . import Task
from .sentiment import distinct, split, tokenize

__all__ = ["load_local"]

FEWEST_ROWS = 40
TEST, VALIDATION = 0.2, 0.1


def load_local(path: str | os.PathLike[str], text_column: str = "text", label_column: str = "label") -> Task:
    """Read the file and split it: 20 % test, 10 % validation, the rest train, by the SHA-256 of the text.

    Labels are strings or whole numbers; class 0 is the first in sorted order.

    Raises:
        ValueError: If the file is missing or too short, a line is no JSON object with both columns, a label is no
            class, or there is only one class.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file} is no file: give one in JSON Lines, with a text and a label a line.")
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            rows.append(_parse(line, f"{file}, line {number}", text_column, label_column))
    rows = distinct(rows)
    classes = sorted({row["label"] for row in rows}, key=lambda label: (isinstance(label, str), label))
    if len(rows) < FEWEST_ROWS or len(classes) < 2:
        raise ValueError(
            f"{file} has {len(rows)} distinct texts of {len(classes)} classes: "
            f"a comparison needs {FEWEST_ROWS} texts and 2 classes at the least."
        )
    rows = [{"text": row["text"], "label": classes.index(row["label"])} for row in rows]
    sizes = {"test": int(len(rows) * TEST), "validation": int(len(rows) * VALIDATION)}
    splits = split(rows, {**sizes, "train": len(rows) - sum(sizes.values())})
    return Task(file.stem, splits, num_labels=len(classes), tokenize=tokenize)


def _parse(line: str, place: str, text_column: str, label_column: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is no JSON: {error}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place} is no JSON object: write {{{text_column!r}: ..., {label_column!r}: ...}} a line.")
    for column in (text_column, label_column):
        if column not in row:
            raise ValueError(
                f"{place} has no {column!r}: it has {', '.join(map(repr, row))}. Name the column that has."
            )
    text, label = row[text_column], row[label_column]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place}: {text_column} is {text!r}, and must be a text.")
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise ValueError(f"{place}: {label_column} is {label!r}, and must be a class: a string or a whole number.")
    return {"text": text, "label": label}
