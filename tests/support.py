"""Writes the tables of docs/support.md from the cases that the tests run: `python tests/support.py`."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from architectures import ARCHITECTURES
from kinds import KINDS, Kind
from optimizers import OPTIMIZERS

PAGE = Path(__file__).parents[1] / "docs" / "support.md"


def architectures() -> str:
    rows = []
    for name, architecture in ARCHITECTURES.items():
        targets = architecture.lora["target_modules"]
        text = targets if isinstance(targets, str) else ", ".join(targets)
        text += "".join(f", {parameter}" for parameter in architecture.lora.get("target_parameters", []))
        rows.append((name, f"`{text}`", "works"))
    return table(("architecture", "adapted modules in the test", "result"), rows)


def kinds() -> str:
    return table(("LoRA with", "result"), [(name, verdict(kind)) for name, kind in KINDS.items()])


def verdict(kind: Kind) -> str:
    """Whether it works. A refusal quotes the error message."""
    if kind.refused:
        return f'refused: "{kind.refused}"'
    parts = ["works", kind.note]
    if kind.no_gates:
        parts.append(f"`selection='stoiht'` is refused: \"{kind.no_gates}\"")
    if kind.no_probe:
        parts.append(f"`selection='gradient'` is refused: \"{kind.no_probe}\"")
    if kind.no_growth:
        parts.append(f'`expand` is refused: "{kind.no_growth}"')
    return "; ".join(part for part in parts if part)


def optimizers() -> str:
    return table(("optimizer", "result"), [(name, f"works; {kind.note}") for name, kind in OPTIMIZERS.items()])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def render(text: str) -> str:
    for name, rows in (("architectures", architectures()), ("kinds", kinds()), ("optimizers", optimizers())):
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda match, rows=rows: f"{match[1]}{rows}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
