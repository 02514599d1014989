"""Splits that keep texts of one origin together."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from weightlora.train.splitting import split


def deal_groups(
    rows: Iterable[dict[str, Any]], group: str, sizes: Mapping[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """Deal groups, in the order of the SHA-256 of their name, into splits until each has enough rows.

    Rows of a split beyond its size are not used.

    Args:
        rows: Each has a `"text"`.
        group: The key with the name of a row's group, such as a film or a document.
        sizes: Name of a split -> its number of rows.

    Raises:
        DataError: There are too few rows.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[group], []).append(row)
    waiting = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest(), reverse=True)
    splits: dict[str, list[dict[str, Any]]] = {}
    for name, size in sizes.items():
        dealt: list[dict[str, Any]] = []
        while waiting and len(dealt) < size:
            dealt += groups[waiting.pop()]
        splits |= split(dealt, {name: size})
    return splits
