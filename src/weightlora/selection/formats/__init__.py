"""The text that each tool wants for a choice: `FORMATS` has a function for each name."""

from collections.abc import Callable
from typing import Any

from ...errors import StateError
from ...values import check_known
from .data import to_json
from .others import to_mlx, to_torchtune
from .python import notes_on_regex, to_peft, to_regex, to_unsloth
from .settings import to_axolotl, to_llamafactory, to_swift, to_trl

__all__ = ["FORMATS", "check_final", "notes_beside", "to_text"]

FORMATS: dict[str, Callable[[Any], list[str]]] = {
    "peft": to_peft,
    "trl": to_trl,
    "axolotl": to_axolotl,
    "llamafactory": to_llamafactory,
    "swift": to_swift,
    "unsloth": to_unsloth,
    "torchtune": to_torchtune,
    "mlx": to_mlx,
    "regex": to_regex,
    "json": to_json,
}
"""Name -> function from a `Selection` to the lines of its text."""


def check_final(selection: Any) -> None:
    """Raise a `StateError` while a run has not chosen."""
    if not selection.final:
        raise StateError(
            f"the choice is not final after {selection.step} steps (phase {selection.phase!r}): wait for the run's "
            "decision."
        )


def to_text(selection: Any, name: str) -> str:
    """The text of a selection in one of the formats, which ends in a line break.

    Raises:
        ConfigError: If the format is not known.
        StateError: If the choice is not final, or nothing was chosen.
    """
    check_known("format", name, FORMATS)
    check_final(selection)
    if not selection.kept:
        raise StateError("the run chose no module, and PEFT refuses an empty list: choose again with a larger budget.")
    return "\n".join(FORMATS[name](selection)) + "\n"


def notes_beside(selection: Any, name: str) -> list[str]:
    """What to tell beside the text of a format that has no comments."""
    return notes_on_regex(selection) if name == "regex" else []
