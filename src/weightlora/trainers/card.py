"""The section of a model card that says which adapters were kept."""

import os
import re
from pathlib import Path

from huggingface_hub import ModelCard

from ..adapters.outcome import EXPORT, misread
from ..errors import DataError
from ..files import write_text
from ..selector import WeightLora
from ..wording import first_line

BEGIN, END = "<!-- weightlora -->", "<!-- /weightlora -->"
SPECIAL = re.compile(r"[^\w.\-]|(?<![^\W_])_|_(?![^\W_])")
"""All but letters, digits, dots, dashes, and underscores inside a word."""

SECTION = re.compile(rf"\n*{BEGIN}.*?{END}\n?", re.DOTALL)


def describe_in_card(selector: WeightLora, directory: str | os.PathLike[str]) -> None:
    """Write the section into the `README.md` of a saved model, in place of an older one. No card is created."""
    path = Path(directory) / "README.md"
    if path.is_file():
        text = SECTION.sub("\n", path.read_text(encoding="utf-8"))
        write_text(path, f"{text.rstrip()}\n\n{section(selector)}\n")


def check_card(directory: str | os.PathLike[str]) -> None:
    """Raise a `DataError` if PEFT cannot read the `README.md` of a directory, to which it adds when it saves there."""
    if error := _error_of(card := Path(directory) / "README.md"):
        raise DataError(
            f"{card} is no model card ({first_line(error)}), and PEFT reads it when it saves the model there: rename "
            "it, or give another output directory."
        ) from error


def drop_damaged_card_(checkpoint: Path) -> None:
    """Delete a `README.md` that PEFT cannot read, in a checkpoint of an earlier run that is now written anew."""
    if _error_of(card := checkpoint / "README.md"):
        card.unlink()


def _error_of(card: Path) -> Exception | None:
    """What keeps PEFT from reading a model card; None if it can, or there is none."""
    try:
        if card.is_file():
            ModelCard.load(card)
    except Exception as error:  # what it raises depends on the content
        return error
    return None


def section(selector: WeightLora) -> str:
    """Markdown: how many adapters were kept, and a table of those that are on the model."""
    rows = [
        f"| <code>{_as_text(adapter.name)}</code> | {adapter.rank} | {selector.scores[adapter.name]:.4g} |"
        for adapter in selector.adapters
    ]
    return "\n".join(
        [
            BEGIN,
            "## Adapters",
            "",
            _summary(selector),
            "",
            "| module | rank | score |",
            "| --- | ---: | ---: |",
            *rows,
            *(["", EXPORT] if selector.phase == "train" and misread(selector.adapters) else []),
            END,
        ]
    )


def _as_text(name: str) -> str:
    """A module's name in a cell of a table. Markdown would read a bar, a line break or a pair of stars in it."""
    return SPECIAL.sub(lambda found: "".join(f"&#{ord(character)};" for character in found[0]), name)


def _summary(selector: WeightLora) -> str:
    left, n = len(selector.adapters), len(selector.names)
    method = f"[WeightLoRA](https://arxiv.org/abs/2506.02724) (`selection={selector.config.selection!r}`)"
    if selector.phase == "train":
        when = f"after {selector.step_count} selection steps" if selector.config.steps else "before the first step"
        return f"{left} of {n} LoRA adapters were kept by {method} {when}:"
    return (
        f"**The choice is not made yet.** This model was saved after {selector.step_count} of "
        f"{selector.config.select_steps} selection steps of {method}, and has {left} of {n} LoRA adapters:"
    )
