"""`python -m benchmarks summarize`: the tables are printed, and written with the pictures where they belong."""

import json
from functools import cache
from pathlib import Path

import pytest
from benchmarks import summary
from benchmarks.__main__ import main
from benchmarks.experiments import plan
from benchmarks.pages import side
from benchmarks.pages.choices import render_choices_markdown
from benchmarks.pages.decision import render_decision_markdown
from benchmarks.pages.kept import render_kept_markdown
from benchmarks.pages.runs import QUALITY
from benchmarks.pages.side import side_comparisons_in
from benchmarks.results import load_results
from benchmarks.summary import read_summary
from benchmarks.tables import render_markdown
from benchmarks.tuning import render_tuning_markdown
from stored import result, store

DOCS = Path(__file__).parents[3] / "docs" / "results"


def test_the_summary_is_printed_as_json(root, finish, capsys):
    for run in plan(root, None, None, None):
        finish(run)
    assert main(["summarize", "--root", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["tasks"]) == ["a", "b"] and found["tasks"]["a"]["k5"]["seeds"] == 2
    assert not (root / "summary.md").exists()


def test_files_are_of_all_tasks_and_what_is_printed_of_those_asked_for(root, tmp_path, capsys):
    for task in ("tiny", "other"):
        for label in ("lora", "random"):
            store(root, result(label, task=task))
    store(root, result("lora", 1, task="other")).write_text("{")
    out = tmp_path / "out"
    assert main(["summarize", "--root", str(root), "--tasks", "tiny", "--output-dir", str(out)]) == 0
    printed, error = capsys.readouterr()
    assert "tiny" in printed and "other" not in printed
    assert "seed-1.json" in error
    assert sorted(path.name for path in out.iterdir()) == ["summary.json", "summary.md"]
    assert not (root / "summary.md").exists()


def test_the_results_in_the_docs_are_the_stored_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for draw in ("draw_headroom", "draw_lines"):  # only the text is compared
        monkeypatch.setattr(side, draw, lambda *_: None)
    load = cache(load_results)
    monkeypatch.setattr(summary, "load_results", load)
    main = load(QUALITY)[0]
    for root in (QUALITY, *side_comparisons_in(QUALITY)):
        page = DOCS / ("" if root == QUALITY else root.name) / "summary.md"
        text = render_markdown(*read_summary(root, main=main)[1:])
        assert page.read_text(encoding="utf-8") == text, "run: make bench-quality"
    for root in side_comparisons_in(QUALITY):
        side._write_page(root.name, load(root)[0], main, tmp_path / root.name)
    written = {page.relative_to(tmp_path) for page in tmp_path.glob("*/*.md")}
    assert {page.parent.name for page in written} == {
        "frontier",
        "gemma3",
        "headroom",
        "ranks",
        "rates",
        "sizes",
        "tuned",
    }
    for page in written:
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert (DOCS / page).read_text(encoding="utf-8") == text, "run: make bench-quality"
    choices = (DOCS / "choices.md").read_text(encoding="utf-8")
    assert choices == render_choices_markdown(main), "run: make bench-quality"
    tuning = (DOCS / "tuning.md").read_text(encoding="utf-8")
    assert tuning == render_tuning_markdown(QUALITY), "run: make bench-quality"
    decision = (DOCS / "decision.md").read_text(encoding="utf-8")
    assert decision == render_decision_markdown(main), "run: make bench-quality"
    kept = (DOCS / "kept.md").read_text(encoding="utf-8")
    assert kept == render_kept_markdown(main), "run: make bench-quality"
