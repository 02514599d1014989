"""What errors about columns propose: names that data sets often have for what a task reads."""

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from datasets import Dataset

from .rows import STRINGS
from .tasks import COLUMNS, OPTIONAL
from .unread import BEFORE, BESIDE

QUESTIONS = (
    *("prompt", "instruction", "question", "query", "problem", "input", "inputs"),
    *("document", "article", "dialogue"),
)
ANSWERS = (
    *("completion", "response", "solution", "answer", "output", "target", "targets", "canonical_solution", "code"),
    *("highlights", "summary"),
)
SECOND = {
    **{"premise": "hypothesis", "sentence1": "sentence2", "question1": "question2", "text1": "text2"},
    **{"sentence_A": "sentence_B", "question": "sentence", "query": "passage"},
}
"""First of two texts -> the second."""
NAMES: dict[str, tuple[str, ...]] = {
    "text": (*SECOND, "sentence", "review", "content", "body", "tweet"),
    "label": ("label", "labels", "gold", "target", "class", "category", "sentiment", "rating", "stars", "score"),
    "tokens": ("words",),
    "tags": ("ner_tags",),
    "source": (*QUESTIONS, "text"),
    "target": (*ANSWERS, "reference", "translation"),
    "prompt": QUESTIONS,
    "completion": ANSWERS,
}
"""Name in a family -> columns that are likely to have it, the most likely first."""

TEXTS = frozenset({"text", "pair", "source", "target", "prompt", "completion", "question", "context"})
"""Names in a family whose columns have texts."""
NO_TEXT = re.compile("(?:.*_)?(?:id|idx|index|guid|url|source|split|lang|language)", re.IGNORECASE)
"""Names of columns that a model has no use for."""


def example(
    family: str, name: str | None = None, column: str = "your_column", given: Mapping[str, Any] | None = None
) -> str:
    """An example of `--columns` for a family: what was given, with another column for one name."""
    return written({**(given or {}), name or next(iter(COLUMNS[family])): column})


def written(columns: Mapping[str, Any]) -> str:
    """The argument for these columns."""
    return f"--columns '{json.dumps(columns)}'"


def example_for(rows: Dataset, columns: Mapping[str, str | None], given: Mapping[str, Any], name: str) -> str:
    """The flag that an error about a missing column proposes, with all columns that are likely.

    Args:
        rows: As they were read.
        columns: Name in the family -> column.
        given: What the user named.
        name: Whose column is missing.
    """
    needed = [one for one, column in columns.items() if column is not None and one not in OPTIONAL]
    missing = [one for one in needed if columns[one] not in rows.column_names and one != name]
    others = (*given, *missing, name)
    if "source" in columns and "source" not in others:  # such a column often says where a row is from
        missing.append("source")
    found: dict[str, str] = {}
    for one in (name, *missing):
        if column := _likely(one, str(columns[one]), rows, {*columns.values(), *found.values()}):
            found[one] = column
            if one == "text" and "pair" in columns and "pair" not in given and SECOND.get(column) in rows.column_names:
                found["pair"] = SECOND[column]
    left = _free(name, rows, {*columns.values(), *found.values()})
    best = left[0] if len(left) == 1 else "your_column"
    return written({**given, name: best, **found})


def pair_in(rows: Dataset) -> tuple[str | None, str | None]:
    """The columns that are likely to have questions and their answers, as texts."""
    prompt = next((name for name in QUESTIONS if name in _free("prompt", rows, ())), None)
    answers = _free("completion", rows, (prompt,))
    return prompt, next((name for name in ANSWERS if name in answers), None)


def without(has: Iterable[str], named: Collection[str | None]) -> str:
    """What a proposal of a prompt and an answer adds where other columns are likely to belong to the prompt."""
    lost = [name for name in has if name in (*BEFORE, *BESIDE) and name not in named]
    return f" after writing {' and '.join(lost)} into the prompt" if lost else ""


def one_object(rows: Dataset) -> str:
    """What an error adds where there is one row: a JSON file with an object around its rows, or around its columns."""
    holds = len(rows) == 1 and any(isinstance(value, list | dict) for value in rows[0].values())
    return " There is one row: if it holds all of yours, save them as JSON Lines." if holds else ""


def _likely(name: str, column: str, rows: Dataset, taken: Collection[str | None]) -> str | None:
    """A free column whose name is nearly the missing one, or one that data sets have for it."""
    free = _free(name, rows, taken)
    nearly, close = (difflib.get_close_matches(column, free, n=1, cutoff=cutoff) for cutoff in (0.8, 0.6))
    return next((one for one in (*nearly, *NAMES.get(name, ()), *close) if one in free), None)


def _free(name: str, rows: Dataset, taken: Collection[str | None]) -> list[str]:
    """Columns that nothing else reads, of texts where texts are read."""
    free = [one for one in rows.column_names if one not in taken and not NO_TEXT.fullmatch(one)]
    return [one for one in free if name not in TEXTS or rows.features[one] in STRINGS]
