"""The figures of the README and of the pages in docs are those of the stored results."""

import importlib
from pathlib import Path

import pytest

from weightlora.bench.choices import render_choices_markdown
from weightlora.bench.results import load_results
from weightlora.bench.studies import studies_in
from weightlora.bench.summary import read_summary, render_markdown

ROOT = Path(__file__).parents[1]
QUALITY = ROOT / "benchmarks" / "quality"


def test_the_tables_are_those_of_the_stored_results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    readme = importlib.import_module("readme")
    text = ""
    for page in readme.PAGES:
        text += (there := page.read_text(encoding="utf-8"))
        assert readme.render(there) == there, "run: python benchmarks/readme.py"
    assert all(f"<!-- {name} -->\n" in text for name in readme.TABLES) and "| adapters |" in text
    assert all((ROOT / "docs" / "results" / f"{name}.png").is_file() for name in readme.PICTURES)


def test_the_papers_tables_are_what_ran_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    paper = importlib.import_module("paper")
    here = {name: table._replace(real=tmp_path) for name, table in paper.TABLES.items()}
    monkeypatch.setattr(paper, "TABLES", here)
    page = paper.PAGE.read_text(encoding="utf-8")
    assert paper.render(page) == page, "run: python benchmarks/paper.py"
    assert all(f"<!-- {name} -->\n" in page for name in here)


def test_the_results_in_the_docs_are_the_stored_ones():
    for root in (QUALITY, *studies_in(QUALITY)):
        page = ROOT / "docs" / "results" / ("" if root == QUALITY else root.name) / "summary.md"
        assert page.read_text(encoding="utf-8") == render_markdown(*read_summary(root)), "run: make bench-quality"
    choices = (ROOT / "docs" / "results" / "choices.md").read_text(encoding="utf-8")
    assert choices == render_choices_markdown(load_results(QUALITY)[0]), "run: make bench-quality"
