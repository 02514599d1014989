"""Refuse rows of a causal LM with something that no part of it would read, or that nobody should learn."""

import json
import re
from collections.abc import Collection, Iterable
from itertools import repeat
from typing import Any

from datasets import Dataset, Json

from ..errors import DataError
from ..wording import shown
from .rows import name_row

MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns beside questions or chats with what no tokenizer reads."""
MEDIUM = re.compile("image|audio|video")
"""In the type of a part of a message that holds such."""
NOTHING: tuple[Any, ...] = (None, "", [], "[]", "null")
"""What a row without such has in its column."""

BEFORE = ("system", "system_prompt", "history", "functions")
"""Columns with what comes before a question."""
BESIDE = ("context", "input", "instruction")
"""Columns that often have a part of a question."""
EMPTY = ("None", "none", "null", "N/A", "n/a")
"""What a table has in place of an empty text."""
MARKS: dict[str, tuple[str, ...]] = {"label": (), "kto_tag": ("false", "False", "FALSE")}
"""Column -> texts that mark an answer there that is not to be learned, as false does. A label may be a class."""


def refuse_lost(split: str, rows: Dataset, read: Collection[str | None], prompt: str | None = None) -> None:
    """Raise a `DataError` for a row with something before its question, or a part of it, that would be left out.

    Args:
        split: Names the rows.
        rows: As they were read.
        read: Columns that are read.
        prompt: The one of them with the questions, if other columns may have parts of them. What a question contains
            is not left out.
    """
    for name in BEFORE if prompt is None else (*BEFORE, *BESIDE):
        if name not in rows.column_names or name in read:
            continue
        questions = rows[prompt] if prompt is not None and name in BESIDE else repeat(None)
        values = zip(_values(rows, name), questions, strict=False)
        row = next((row for row, (one, asked) in enumerate(values) if _is_lost(one, asked)), None)
        if row is not None:
            renamed = name == "system_prompt" and "system" in read
            raise DataError(
                f"{name_row(rows, split, row)} has {shown(rows[row][name])} as its {name}, which would be left out: "
                f"{'rename the column to system' if renamed else 'write it into the question'}, or drop the column "
                f"{name!r}."
            )


def _values(rows: Dataset, name: str) -> Iterable[Any]:
    """The values of a column as they are stored, without decoding images, but not those that are stored as JSON."""
    return rows[name] if isinstance(rows.features[name], Json) else (one.as_py() for one in rows.data.column(name))


def _is_lost(value: Any, question: Any) -> bool:
    """Whether a value says something, and its question does not have it."""
    if isinstance(value, str) and question is not None:
        asked = question if isinstance(question, str) else json.dumps(question, ensure_ascii=False, default=str)
        return value.strip() not in EMPTY and value.strip() not in asked
    return value not in NOTHING


def refuse_bad_answers(split: str, rows: Dataset) -> None:
    """Raise a `DataError` for an answer that is marked as a bad one, as in the unpaired preferences of KTO."""
    for name, bad in MARKS.items():
        if name not in rows.column_names:
            continue
        row = next((row for row, mark in enumerate(rows[name]) if mark is False or mark in bad), None)
        if row is not None:
            raise DataError(
                f"{name_row(rows, split, row)} has the {name} false, which marks a bad answer, and all answers are "
                f"learned: keep the rows with the {name} true, or drop the column {name!r}."
            )


def refuse_media(split: str, rows: Dataset, chats: str | None = None) -> None:
    """Raise a `DataError` for images, audio or video beside questions or in chats: the model would not get them."""
    marks: dict[str, Iterable[bool]] = {
        f"the column {name!r}": (value not in NOTHING for value in _values(rows, name))
        for name in MEDIA
        if name in rows.column_names
    }
    if chats is not None:
        marks["its messages"] = map(_has_media, rows[chats])
    for where, marked in marks.items():
        row = next((row for row, has in enumerate(marked) if has), None)
        if row is None:
            continue
        raise DataError(
            f"{name_row(rows, split, row)} has images, audio or video in {where}, and only texts are read here: leave "
            "them out, or pass batches of the model's processor to select() or WeightLoraTrainer in a script."
        )


def _has_media(chat: Any) -> bool:
    contents = [one.get("content") for one in chat or () if isinstance(one, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, dict) and MEDIUM.search(str(part.get("type"))) for part in parts)
