"""Writes the generated tables of README.md and docs, and their pictures, from the stored results.

    python -m benchmarks.readme

A table stands between `<!-- name -->` and `<!-- /name -->`; a page may hold any of them. The stored results are:

- `quality/`, from `python -m benchmarks run`;
- `results/quickstart.json` and `results/quickstart/selection.json`: `result.json` and `selection.json` of
  `weightlora quickstart --compare`;
- `results/speed.json`, from `make bench`;
- `results/prefix.json` and `results/budgets.json`, from `python -m benchmarks prefix` and `... budgets`;
- `results/memory.json` and `results/alignment.json`, from `python -m benchmarks memory` and `... alignment`.
"""

import re
from collections.abc import Callable
from pathlib import Path

from weightlora.drawing.figures import encode
from weightlora.drawing.picture import selection_figure
from weightlora.files import write, write_text
from weightlora.selection.reading import read_values

from .figures.alignment import draw_alignment
from .figures.memory import draw_memory
from .pages import chance, costs, decision, formats, log
from .pages.reliability import draw_reliability
from .studies.alignment import summarize_alignment
from .studies.budgets import render_budgets_markdown
from .studies.memory import render_memory_markdown
from .studies.prefix import render_prefix_markdown

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAMES = ("index", "choosing", "evidence", "faq", "log", "memory", "quickstart", "studies", "target_modules")
PAGES = (ROOT / "README.md", *(DOCS / f"{name}.md" for name in NAMES))

TABLES: dict[str, Callable[[], str]] = {
    "costs": costs.costs,
    "savings": costs.savings,
    "worth": decision.worth,
    "shown": decision.shown,
    "corrected": decision.after_correction,
    "metrics": costs.metrics,
    "quickstart": costs.quickstart,
    "speed": costs.speed,
    "sparing": costs.sparing,
    "memory-of-methods": costs.memory_of_methods,
    "memory": lambda: render_memory_markdown(costs.stored("memory")),
    "budgets": lambda: render_budgets_markdown(costs.stored("budgets")),
    "prefix": lambda: render_prefix_markdown(costs.stored("prefix")),
    "alignment": lambda: summarize_alignment(costs.stored("alignment")),
    **formats.TABLES,
    **log.TABLES,
}


def put(text: str, name: str, content: str) -> str:
    """The page with the content between the markers of that name, if it has them."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{content.strip()}\n{match[2]}", text)


def render(text: str) -> str:
    """A page with its tables put between their markers."""
    for name, draw in TABLES.items():
        if f"<!-- {name} -->" in text:
            text = put(text, name, draw())
    return text


def draw_choice(path: Path) -> Path:
    """The choice of the stored quickstart run, one square per adapter."""
    picture = encode(selection_figure(read_values(costs.RESULTS / "quickstart")), "png")
    return write(path, lambda partial: partial.write_bytes(picture))


PICTURES: dict[Path, Callable[[Path], object]] = {
    DOCS / "images" / "selection.png": draw_choice,
    DOCS / "results" / "chance.png": chance.draw_chance,
    DOCS / "results" / "worth.png": decision.draw_worth,
    DOCS / "results" / "memory.png": lambda path: draw_memory(costs.stored("memory"), path),
    DOCS / "results" / "reliability" / "runs.png": draw_reliability,
    DOCS / "results" / "alignment.png": lambda path: draw_alignment(costs.stored("alignment"), path),
}


if __name__ == "__main__":
    for page in PAGES:
        write_text(page, render(page.read_text(encoding="utf-8")))
    for path, draw in PICTURES.items():
        draw(path)
