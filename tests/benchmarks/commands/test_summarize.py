"""`python -m benchmarks summarize`: the tables are printed, and written with the pictures where they belong."""

import json
from pathlib import Path

import pytest
from benchmarks.__main__ import main
from benchmarks.experiments import plan
from benchmarks.pages import side
from benchmarks.pages.choices import render_choices_markdown
from benchmarks.pages.decision import render_decision_markdown
from benchmarks.pages.kept import render_kept_markdown
from benchmarks.pages.runs import QUALITY
from benchmarks.pages.side import side_comparisons_in, write_headroom
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
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["tasks"]) == ["a", "b"] and summary["tasks"]["a"]["k5"]["seeds"] == 2
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
    assert sorted(path.name for path in out.iterdir()) == ["other.png", "summary.json", "summary.md", "tiny.png"]
    assert not (root / "summary.md").exists()


def test_the_results_in_the_docs_are_the_stored_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(side, "draw_headroom", lambda *_: None)  # only the text is compared
    main = load_results(QUALITY)[0]
    for root in (QUALITY, *side_comparisons_in(QUALITY)):
        page = DOCS / ("" if root == QUALITY else root.name) / "summary.md"
        text = render_markdown(*read_summary(root, main=main)[1:])
        assert page.read_text(encoding="utf-8") == text, "run: make bench-quality"
    choices = (DOCS / "choices.md").read_text(encoding="utf-8")
    assert choices == render_choices_markdown(main), "run: make bench-quality"
    tuning = (DOCS / "tuning.md").read_text(encoding="utf-8")
    assert tuning == render_tuning_markdown(QUALITY), "run: make bench-quality"
    decision = (DOCS / "decision.md").read_text(encoding="utf-8")
    assert decision == render_decision_markdown(main), "run: make bench-quality"
    kept = (DOCS / "kept.md").read_text(encoding="utf-8")
    assert kept == render_kept_markdown(main), "run: make bench-quality"
    write_headroom(load_results(QUALITY / "headroom")[0], main, tmp_path)
    for page in tmp_path.iterdir():
        stored = DOCS / "headroom" / page.name
        assert stored.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), "run: make bench-quality"
