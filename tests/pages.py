"""The pages of the site, by mkdocs.yml, and the fenced blocks in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<notest><!-- notest -->\n)?(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


def pages() -> list[str]:
    """Every page of the navigation, as a path in docs/."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return list(_leaves(settings["nav"]))


def pages_with(language: str) -> list[Path]:
    """Those that have a block in the language."""
    return [
        page for page in PAGES if any(found["info"] == language for found in FENCE.finditer(page.read_text("utf-8")))
    ]


def task_pages() -> list[str]:
    """The pages that people write and read: not the landing page, and not what `benchmarks` generates."""
    return [page for page in pages() if page != "index.md" and not page.startswith("results/")]


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(entry)
