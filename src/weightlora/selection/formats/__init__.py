"""The text that each tool wants for a choice: `FORMATS` has a function for each name."""

import difflib
from collections.abc import Callable
from typing import Any

from ...errors import ConfigError, StateError
from . import data

__all__ = ["FORMATS", "to_text"]

FORMATS: dict[str, Callable[[Any], str]] = {
    "json": data.to_json,
}
"""Name -> function from a `Selection` to its text, which ends in a line break."""


def to_text(selection: Any, name: str) -> str:
    """The text of a selection in one of the formats.

    Raises:
        ConfigError: If the format is not known.
        StateError: If the choice is not final, or nothing was chosen.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(str(name).lower(), FORMATS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? The formats are" if near else "choose one of"
        raise ConfigError(f"format={name!r} is not known: {hint} {', '.join(FORMATS)}.")
    if not selection.final:
        raise StateError(
            f"the choice is not final after {selection.step} steps (phase {selection.phase!r}): wait for the run's "
            "decision."
        )
    if not selection.kept:
        raise StateError("the run chose no module, and PEFT refuses an empty list: choose again with a larger budget.")
    return FORMATS[name](selection)
