"""Check the rows of a data set before a tokenizer sees them, and shorten texts that are far too long.

`datasets` gives a column any type that its file happens to have: numbers, lists or nothing where a text belongs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

import numpy as np
from datasets import Dataset, Value

from ..errors import DataError
from ..schema import Rule
from ..values import is_int
from ..wording import shown
from .verbatim import parsed

Part = TypeVar("Part", str, list[str])


def _are(value: Any, kind: type) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and all(isinstance(part, kind) for part in value)


def _are_answers(value: Any) -> bool:
    texts, starts = (value.get(name) if isinstance(value, dict) else None for name in ("text", "answer_start"))
    if not (_are(texts, str) and _are(starts, int) and len(texts) == len(starts)):
        return False
    return all(is_int(start) and start >= 0 for start in starts)


def _is_message(value: Any) -> bool:
    """Whether a value is a message. Templates would write other contents as Python does."""
    if not (isinstance(value, dict) and isinstance(value.get("role"), str)):
        return False
    return isinstance(content := value.get("content"), str | None) or _are(content, dict)


STRINGS = (Value("string"), Value("large_string"))
"""Types of columns of texts. Some tools write Parquet files with the second."""

TEXT: Rule = lambda value: isinstance(value, str), "a string"
RULES: dict[str, Rule] = {
    **dict.fromkeys(("text", "pair", "source", "target", "prompt", "completion", "question", "context"), TEXT),
    "tokens": (lambda value: _are(value, str), "a list of strings"),
    "tags": (lambda value: isinstance(value, list), "a list of labels"),
    "answers": (
        _are_answers,
        "an object with the lists text (texts) and answer_start (whole numbers), both of the same length",
    ),
    "messages": (
        lambda value: isinstance(value, list) and all(map(_is_message, value)),
        "a list of messages, each an object with a role and a content, which is a text or a list of parts",
    ),
    "tools": (
        lambda value: (tools := parsed(value)) in (None, "") or _are(tools, dict),
        "a list of objects, each the description of a function, or such a list written as JSON",
    ),
}
"""Name in a family -> what each row must have there. A column that is not listed may have anything."""

FORM = {"text": "texts", "prompt": "prompts and completions", "messages": "chats"}
"""Name in a family -> what rows are that have it. A causal LM learns other tokens of each."""

NUMBER = "number of the row"
"""Column with the number of each row in the training data, where a split has only a part of them."""

SHORT = 2**16
"""Characters of a text that a tokenizer always gets whole."""

LONGEST = 2**21
"""Characters in which a text of any length must have all the tokens that are used."""

MARGIN = 64
"""Tokens beyond those that are used. A text that was cut may be tokenized in another way near the cut."""


def check_rows(splits: Mapping[str, Dataset]) -> None:
    """Raise a `DataError` for the first row that has something else in a column than the family reads.

    Or for a split without a second text, where another has one, and for two in different forms of a causal LM.

    Args:
        splits: Rows by split, with the names of columns that the families use.
    """
    paired = {split: "pair" in rows.column_names for split, rows in splits.items()}
    if len(found := {has: split for split, has in paired.items()}) > 1:
        raise DataError(
            f"{found[True]} has a second text, pair, and {found[False]} has none: give both one, or leave it out with "
            "--columns '{\"pair\": null}'."
        )
    forms = {FORM[name]: split for split, rows in splits.items() for name in rows.column_names if name in FORM}
    if len(forms) > 1:
        (one, first), (other, second), *_ = forms.items()
        raise DataError(
            f"{first} has {one}, and {second} has {other}, of which other tokens are learned: give both the same form."
        )
    for split, rows in splits.items():
        for name in rows.column_names:
            rule = RULES.get(name)
            if rule is None or (rule is TEXT and _all_texts(rows, name)):
                continue
            fits, wanted = rule
            for row, value in enumerate(rows[name]):
                if not fits(value):
                    what = "an empty field" if value is None else shown(value)
                    raise DataError(
                        f"{name_row(rows, split, row)} has {what} as its {name}, which must be {wanted}: fix "
                        "the row, or leave it out."
                    )


def check_tokens(ids: Sequence[Sequence[int]], rows: Dataset, split: str, indices: Sequence[int]) -> None:
    """Raise a `DataError` for the first of these rows that has no token: a model cannot read it.

    Tokenizers of encoders add special tokens to an empty text, and those of many decoders add none.
    """
    for row, tokens in zip(indices, ids, strict=True):
        if not len(tokens):
            raise DataError(
                f"{name_row(rows, split, row)} is empty, and the tokenizer of this model makes no token of it: leave "
                "it out."
            )


def numbered(rows: Dataset) -> Dataset:
    """The training rows with their numbers in a column, so that errors about a part of them name the file's row."""
    return rows if NUMBER in rows.column_names else rows.add_column(NUMBER, np.arange(len(rows)))


def name_row(rows: Dataset, split: str, row: int) -> str:
    """How an error names a row of a split: `"row 7 of train (counted from 0)"`, with its number in the file."""
    number, split = (rows[row][NUMBER], "train") if NUMBER in rows.column_names else (row, split)
    return f"row {number} of {split} (counted from 0)"


def _all_texts(rows: Dataset, name: str) -> bool:
    """Whether the column is known to have texts only. This needs no look at the rows."""
    is_text = rows.features[name] in STRINGS
    return is_text and rows.data.column(name).null_count == 0


def head_of(tokenizer: Any, text: str, tokens: int) -> str:
    """The beginning of a text, long enough for so many tokens. Most texts are returned as they are.

    A tokenizer reads a text to its end, and then cuts it: 50 MB take minutes and gigabytes. The first `tokens` tokens
    of what is returned are those of the whole text.
    """
    return _enough(text, tokens, lambda size: text[:size], _count(tokenizer))


def tail_of(tokenizer: Any, text: str, tokens: int) -> str:
    """The end of a text, long enough for its last `tokens` tokens."""
    return _enough(text, tokens, lambda size: text[-size:], _count(tokenizer))


def words_of(tokenizer: Any, words: list[str], tokens: int) -> list[str]:
    """The first words of a list, long enough for so many tokens."""

    def first(size: int) -> list[str]:
        taken, left = [], size
        for word in words:
            taken.append(word[:left])
            left -= len(word) + 1
            if left <= 0:
                break
        return taken

    count = _count(tokenizer, is_split_into_words=True)
    return _enough(words, tokens, first, count, sum(map(len, words)) + len(words))


def _enough(
    whole: Part,
    tokens: int,
    part_of: Callable[[int], Part],
    count: Callable[[Part], int],
    length: int | None = None,
) -> Part:
    """The shortest part, of growing sizes, that has all the tokens and a margin; else the whole."""
    size, length = SHORT, len(whole) if length is None else length
    while size < length:
        part = part_of(size)
        if count(part) >= tokens + MARGIN:
            return part
        if size > max(LONGEST, 64 * tokens):
            raise DataError(
                f"the text {shown(whole)} has {length:,} characters, and the first {size:,} of them have less than "
                f"{tokens + MARGIN} tokens: shorten it."
            )
        size *= 4
    return whole


def _count(tokenizer: Any, **settings: Any) -> Callable[[str | Sequence[str]], int]:
    def count(part: str | Sequence[str]) -> int:
        return len(tokenizer(part, add_special_tokens=False, verbose=False, **settings).input_ids)

    return count
