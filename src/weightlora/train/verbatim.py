"""Values as their files have them: parts that are written as JSON, objects with their own fields, exact numbers."""

import json
from collections.abc import Mapping
from typing import Any

from datasets import Json

DEEPEST_ROW = 64
"""Levels of lists and objects that Arrow can store in a row."""


def parsed(value: Any) -> Any:
    """A part of a chat, which a file has as objects or as JSON. What is no JSON, or deep, is returned as it is."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
    return found if _is_within(found, DEEPEST_ROW) else value


def _is_within(value: Any, levels: int) -> bool:
    """Whether a value has no more than so many levels of lists and objects."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not inner or (levels > 0 and all(_is_within(one, levels - 1) for one in inner))


def as_written(value: Any, feature: Any) -> Any:
    """A value without the fields that only other rows have, which Arrow adds as None, and with its numbers.

    Chat templates ask whether a message has a field, and write a tool's fields as they are.

    Args:
        value: A row, or a part of one.
        feature: Its type: `Dataset.features`, or a part of them. Those of another file would be wrong.
    """
    if isinstance(value, dict) and isinstance(feature, Mapping):
        return {name: as_written(part, feature.get(name)) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        inner = getattr(feature, "feature", None)
        return [as_written(part, inner) for part in value]
    return _exact(value) if isinstance(feature, Json) else value


def _exact(value: Any) -> Any:
    """A value that was kept as JSON, of which datasets reads 7.9007 as 7.9007000000000005."""
    if isinstance(value, dict):
        return {name: _exact(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_exact(part) for part in value]
    return float(f"{value:.15g}") if isinstance(value, float) else value
