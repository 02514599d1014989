"""Writes the tables of docs/support.md from what the tests run over: `python tests/support.py`."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from architectures import ARCHITECTURES
from kinds import KINDS

PAGE = Path(__file__).parents[1] / "docs" / "support.md"


def architectures() -> str:
    rows = []
    for name, architecture in ARCHITECTURES.items():
        targets = architecture.lora["target_modules"]
        text = targets if isinstance(targets, str) else ", ".join(targets)
        text += "".join(f", {parameter}" for parameter in architecture.lora.get("target_parameters", []))
        rows.append(f"| {name} | `{text}` | works |")
    return "\n".join(["| architecture | adapted in the test | |", "| --- | --- | --- |", *rows])


def kinds() -> str:
    rows = []
    for name, kind in KINDS.items():
        verdict = f"refused: {kind.refused}" if kind.refused else f"works: {kind.note}" if kind.note else "works"
        rows.append(f"| {name} | {verdict} |")
    return "\n".join(["| LoRA with | |", "| --- | --- |", *rows])


def render(text: str) -> str:
    for name, table in (("architectures", architectures()), ("kinds", kinds())):
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
