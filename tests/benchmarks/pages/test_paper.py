"""The tables of the paper: what ran with its own models takes the place of the stand-ins."""

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.pages import paper
from stored import result, store

from weightlora.train.result import read_result, write_result


def test_the_papers_tables_are_what_ran_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    here = {name: table._replace(real=tmp_path) for name, table in paper.TABLES.items()}
    monkeypatch.setattr(paper, "TABLES", here)
    page = paper.PAGE.read_text(encoding="utf-8")
    assert paper.render(page) == page, "run: python -m benchmarks.pages.paper"
    assert all(f"<!-- {name} -->\n" in page for name in here)


def test_what_ran_with_the_papers_models_takes_the_place(tmp_path: Path):
    stored = read_result(paper.QUALITY / "rotten-tomatoes" / "results" / "lora" / "seed-0.json")
    settings = {"settings": {"model": "microsoft/deberta-v3-base"}}
    for method, value in (("lora", 0.5), ("weightlora", 0.75)):
        path = tmp_path / "cola" / "results" / f"{method}-r8" / "seed-18.json"
        path.parent.mkdir(parents=True)
        run = replace(stored, task="cola", method=method, label=f"{method}-r8", seed=18, settings=settings)
        figures = {"metric": "matthews", "metric_units": {"matthews": "fraction"}, "trainable_parameters_after": 1000}
        write_result(path, replace(run, **figures, metrics={"validation": {"held_out_loss": 1.0, "matthews": value}}))
    glue, ablation = (paper.fill(paper.TABLES[name]._replace(real=tmp_path)) for name in ("glue", "ablation"))
    assert glue.startswith("**The paper's experiment**, run with microsoft/deberta-v3-base.")
    assert "| lora-r8 | 1 | 1,000 | 50.00 |" in glue and "| weightlora-r8 | 1 | 1,000 | 75.00 |" in glue
    assert "| weightlora-r8 | 1 | 1,000 | 75.00 |" in ablation and "lora-r8 | 1 | 1,000 | 50.00" not in ablation


def test_a_stand_in_says_what_it_is_and_shows_the_tasks_of_its_table(tmp_path: Path):
    for task, accuracy in (("tiny", 0.75), ("other", 0.25)):
        store(tmp_path / "side", result("lora", task=task, accuracy=accuracy))
    text = paper.fill(paper.Table(tmp_path / "real", tmp_path / "side", ("tiny",), "a tiny model"))
    assert text.startswith("**Not the paper's experiment**, but a tiny model.\n\n| method | seeds | trainable | tiny ")
    assert "| lora | 1 | 100 | 75.00 |" in text
    assert paper.fill(paper.Table(tmp_path / "real", tmp_path / "side", (), "")) == "Nothing of it has run yet."
    assert paper.fill(paper.Table(tmp_path / "real", None, (), "There is none.")) == "There is none."
