"""Read the settings file of a comparison, which somebody may have changed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..train.reading import check_name
from ..wording import first_line, shown

__all__ = ["FORMAT", "MOST_SEEDS", "SETTINGS", "read_settings"]

SETTINGS = "settings.json"
FORMAT = 1
MOST_SEEDS = 10_000


def read_settings(path: Path) -> dict[str, Any]:
    """The content of the file, with every part of the type that it must have.

    Raises:
        DataError: It cannot be read, has another format, or was changed.
        ConfigError: A method has a name that leads out of the directory.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read ({first_line(error)}): delete its directory, compare again."
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise DataError(f"{path} has format {shown(found)}, and this version reads {FORMAT}: give another directory.")
    if not _is_whole(content):
        raise DataError(f"{path} was changed, or is not whole: delete its directory, and compare again.")
    for name in content["methods"]:
        check_name(name, f"{path} has the method")
    return content


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Whether each part of the settings has its type."""
    data, methods, seeds = content.get("data"), content.get("methods"), content.get("seeds")
    return (
        isinstance(seeds, int)
        and 1 <= seeds <= MOST_SEEDS
        and isinstance(data, dict)
        and all(isinstance(value, str) for value in data.values())
        and isinstance(content.get("shared"), dict)
        and isinstance(methods, dict)
        and bool(methods)
        and all(isinstance(entry, dict) and _is_entry(entry) for entry in methods.values())
    )


def _is_entry(entry: Mapping[str, Any]) -> bool:
    rates, settings = entry.get("learning_rates"), entry.get("settings")
    return (
        isinstance(rates, list)
        and bool(rates)
        and all(isinstance(rate, float) and math.isfinite(rate) and rate > 0 for rate in rates)
        and isinstance(settings, dict)
        and isinstance(settings.get("task"), str)
    )
