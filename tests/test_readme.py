"""The figures of the README and of the pages in docs are those of the stored results."""

import importlib
import json
from pathlib import Path

import pytest
from benchmarks.experiments import resolve, tasks_in
from benchmarks.results import load_results
from benchmarks.studies.choices import render_choices_markdown
from benchmarks.studies.kept import render_kept_markdown
from benchmarks.studies.pages import studies_in, write_headroom
from benchmarks.summary import read_summary, render_markdown
from benchmarks.tuning import preferred

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


def test_what_ran_with_the_papers_models_takes_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    paper = importlib.import_module("paper")
    for method, value in (("lora", 0.5), ("weightlora", 0.75)):
        path = tmp_path / "cola" / "results" / f"{method}-r8" / "seed-18.json"
        path.parent.mkdir(parents=True)
        experiment = {"method": method, "settings": {"model": "microsoft/deberta-v3-base"}}
        result = {
            "format": 1,
            "task": "cola",
            "method": f"{method}-r8",
            "seed": 18,
            "experiment": experiment,
            "loss": 1,
        }
        result |= {"metric": {"name": "matthews", "value": value}, "metrics": {"matthews": value}, "kept": None}
        result |= {"trainable_parameters": {"after": 1000}, "versions": {"weightlora": "0.1.0"}}
        path.write_text(json.dumps(result), encoding="utf-8")
    glue, ablation = (paper.fill(paper.TABLES[name]._replace(real=tmp_path)) for name in ("glue", "ablation"))
    assert glue.startswith("**The paper's experiment**, run with microsoft/deberta-v3-base.")
    assert "| lora-r8 | 1 | 1,000 | 50.00 |" in glue and "| weightlora-r8 | 1 | 1,000 | 75.00 |" in glue
    assert "| weightlora-r8 | 1 | 1,000 | 75.00 |" in ablation and "lora-r8 | 1 | 1,000 | 50.00" not in ablation


def test_the_results_in_the_docs_are_the_stored_ones(tmp_path: Path):
    main = load_results(QUALITY)[0]
    for root in (QUALITY, *studies_in(QUALITY)):
        page = ROOT / "docs" / "results" / ("" if root == QUALITY else root.name) / "summary.md"
        text = render_markdown(*read_summary(root, main=main))
        assert page.read_text(encoding="utf-8") == text, "run: make bench-quality"
    choices = (ROOT / "docs" / "results" / "choices.md").read_text(encoding="utf-8")
    assert choices == render_choices_markdown(main), "run: make bench-quality"
    kept = (ROOT / "docs" / "results" / "kept.md").read_text(encoding="utf-8")
    assert kept == render_kept_markdown(main), "run: make bench-quality"
    pages = [path for path in write_headroom(QUALITY, QUALITY / "headroom", tmp_path) if path.suffix == ".md"]
    for page in pages:
        stored = ROOT / "docs" / "results" / "headroom" / page.name
        assert stored.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), "run: make bench-quality"


def test_every_method_runs_at_the_rate_that_its_tuning_prefers():
    tuned = {path.parent for path in QUALITY.glob("*/tuning/*/lr-*.json")}
    assert tuned
    for folder in tuned:
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("lr-*.json")]
        rate = preferred(runs)
        assert resolve(QUALITY, folder.parents[1].name, folder.name)["learning_rate"] == rate, folder


def test_chance_after_the_selection_phase_differs_from_the_default_in_the_choice_alone():
    for task in tasks_in(QUALITY):
        late, default = (resolve(QUALITY, task, label) for label in ("random-late", "weightlora"))
        assert late.pop("options") == {"selection": "random"} and default.pop("options") == {}
        assert {**late, "label": None, "seeds": None} == {**default, "label": None, "seeds": None}, task
