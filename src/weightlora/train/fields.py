"""Which fields of a CSV file are texts, and which are numbers. pandas takes `007` for the number 7."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset

from .layouts import ALPACA_TEXTS
from .rows import KINDS, TEXT

__all__ = ["Readers", "readers_for", "with_numbers"]

Readers = Mapping[str, Callable[[str], str | None]]
"""Column -> what makes a value of each of its fields, as pandas takes it."""

NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d+)?")
TRUTH = re.compile("[Tt]rue|TRUE|[Ff]alse|FALSE")


def readers_for(family: str, columns: Mapping[str, str | None]) -> Readers:
    """How to read the columns with texts, and with names of classes. pandas finds out what the others have.

    Args:
        family: Of the task.
        columns: Name in the family -> column.
    """
    texts = [column for name, column in columns.items() if column and KINDS.get(name) == TEXT]
    texts += ALPACA_TEXTS if family == "causal-lm" else ()
    label = columns["label"] if family == "text-classification" else None
    return {**dict.fromkeys(texts, _text), **({label: _label} if label and label not in texts else {})}


def with_numbers(rows: Dataset, readers: Readers) -> Dataset:
    """The rows, with numbers or truth values as labels where the column of labels has nothing else.

    A number that is written in another way than usual, such as `007`, is a name.
    """
    for column in [name for name in rows.column_names if readers.get(name) is _label]:
        found = [label for label in rows.unique(column) if label is not None]
        if found and all(map(TRUTH.fullmatch, found)):
            known: dict[str, Any] = {label: label.lower() == "true" for label in found}
        elif found and all(map(NUMBER.fullmatch, found)):
            kind = float if any("." in label for label in found) else int
            known = {label: kind(label) for label in found}
        else:
            continue
        values = [known.get(label) for label in rows[column][:]]  # a cast would copy the texts, too
        rows = rows.remove_columns(column).add_column(column, values).select_columns(rows.column_names)
    return rows


def _text(field: str) -> str | None:
    """The field; None if it is empty."""
    return field or None


def _label(field: str) -> str | None:
    """The field, a number without the spaces around it; None if it is empty."""
    number = field.strip()
    return number if NUMBER.fullmatch(number) else field or None
