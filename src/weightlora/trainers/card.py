"""The section of a model card that says which adapters were kept."""

import html
import os
import re
from pathlib import Path

from ..selector import WeightLora

BEGIN, END = "<!-- weightlora -->", "<!-- /weightlora -->"
SECTION = re.compile(rf"\n*{BEGIN}.*?{END}\n?", re.DOTALL)


def describe_in_card(selector: WeightLora, directory: str | os.PathLike[str]) -> None:
    """Put the section into the `README.md` of a saved model, in place of an older one; without a card, do nothing."""
    path = Path(directory) / "README.md"
    if path.is_file():
        text = SECTION.sub("\n", path.read_text(encoding="utf-8"))
        path.write_text(f"{text.rstrip()}\n\n{section(selector)}\n", encoding="utf-8")


def section(selector: WeightLora) -> str:
    """Markdown: how many adapters there are, and a row for each that is on the model."""
    left, n = len(selector.adapters), len(selector.names)
    what = f"{left} of {n} LoRA adapters were kept" if selector.phase == "train" else f"{left} of {n} are left so far"
    rows = [
        f"| <code>{html.escape(adapter.name)}</code> | {adapter.rank} | {selector.scores[adapter.name]:.4g} |"
        for adapter in selector.adapters
    ]
    return "\n".join(
        [
            BEGIN,
            "## Adapters",
            "",
            f"{what} by [WeightLoRA](https://arxiv.org/abs/2506.02724) (`selection={selector.config.selection!r}`) in "
            f"{selector.step_count} steps:",
            "",
            "| module | rank | score |",
            "| --- | ---: | ---: |",
            *rows,
            END,
        ]
    )
