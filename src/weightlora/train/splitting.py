"""Split rows by the SHA-256 of their text: the same on every machine and for every order of a file.

No text is in two splits. Texts that differ in case and white space only count as the same text.
"""

import filecmp
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DataError


def same_text(text: str) -> str:
    """What is equal for texts that count as the same one."""
    return " ".join(text.casefold().split())


def distinct(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without repeated texts, ignoring case and white space. The first of each stays."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(same_text(row["text"]), row)
    return list(first.values())


def split(rows: Iterable[dict[str, Any]], sizes: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Deal the rows, in the order of the SHA-256 of their text, into splits of the given sizes.

    Rows that are left over are not used.

    Raises:
        DataError: There are fewer rows than the sizes ask for.
    """
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row["text"].encode()).hexdigest())
    if len(ordered) < sum(sizes.values()):
        raise DataError(f"{len(ordered)} rows are not enough for splits of {dict(sizes)}: give more rows.")
    splits, start = {}, 0
    for name, size in sizes.items():
        splits[name] = ordered[start : start + size]
        start += size
    return splits


def before_answer(column: str, value: Any) -> Any:
    """A value of a row by which it goes to a split: of `messages`, those before the last one, which is the answer.

    So answers to one question are in one split, as those to one `prompt` are. A chat with nothing but a system prompt
    before the answer is itself what it begins with.
    """
    if column != "messages" or not isinstance(value, list):
        return value
    asked = [one for one in value[:-1] if isinstance(one, dict) and one.get("role") != "system"]
    return value[:-1] if asked else value


def hold_out(
    texts: Sequence[str], share: float, place: str = "the data", what: str = "text"
) -> tuple[list[int], list[int]]:
    """Indices of the texts to train on and of the texts to evaluate on. Equal texts are on the same side.

    Args:
        texts: The texts.
        share: The share of all texts, and of the distinct ones, to evaluate on. Less is held out where a text that is
            repeated does not fit, but at least one text: then, the one with the fewest repetitions.
        place: Where they come from, for the error.
        what: What a text is, for the error.

    Raises:
        DataError: There are fewer than two distinct texts.
    """
    keys = [hashlib.sha256(same_text(text).encode()).hexdigest() for text in texts]
    repeated = Counter(keys)
    different = sorted(repeated)
    if len(different) < 2:
        raise DataError(
            f"{place} has {'one distinct' if different else 'no'} {what}, and a part for validation can be split off "
            "from 2 or more: add rows, or give --validation_file."
        )
    most, left = (max(1, round(share * len(found))) for found in (different, keys))
    held: set[str] = set()
    for key in different:
        if repeated[key] <= left and len(held) < most:
            held.add(key)
            left -= repeated[key]
    held = held or {min(different, key=repeated.__getitem__)}
    train = [index for index, key in enumerate(keys) if key not in held]
    return train, [index for index, key in enumerate(keys) if key in held]


def warn_of_same_files(train: str | None, evaluation: str | None) -> None:
    """Warn if the file to evaluate on is the training file, or a copy of it.

    Args:
        train: The training file, or None.
        evaluation: The other file, or None. Both exist.
    """
    if train and evaluation and filecmp.cmp(train, evaluation, shallow=False):
        warnings.warn(
            f"{evaluation} has the rows of the training file, so figures on it say nothing of new texts: give other "
            "rows, or leave out --validation_file.",
            stacklevel=2,
        )
