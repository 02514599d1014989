"""The figures of the README and of the pages in docs are those of the stored results."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import readme
from benchmarks.experiments import labels_in, resolve, tasks_in
from benchmarks.pages import paper
from benchmarks.pages.choices import render_choices_markdown
from benchmarks.pages.kept import render_kept_markdown
from benchmarks.pages.side import side_comparisons_in, write_headroom
from benchmarks.results import load_results
from benchmarks.summary import read_summary
from benchmarks.tuning import preferred, render_tuning_markdown

from weightlora.compare.tables import render_markdown
from weightlora.train.result import read_result, write_result

ROOT = Path(__file__).parents[1]
QUALITY = ROOT / "benchmarks" / "quality"
FORBIDDEN = ("told apart", "of one's own", "falls silent", "fall silent", "a line a step")


def test_the_tables_are_those_of_the_stored_results():
    marked: set[str] = set()
    for page in readme.PAGES:
        text = page.read_text(encoding="utf-8")
        assert readme.render(text) == text, "run: python -m benchmarks.readme"
        marked |= set(re.findall(r"^<!-- ([\w-]+) -->$", text, re.MULTILINE))
    assert marked == set(readme.TABLES)


def test_the_pictures_are_there():
    for path in readme.PICTURES:
        assert path.read_bytes().startswith(b"\x89PNG"), "run: python -m benchmarks.readme"


def test_the_picture_of_a_choice_is_of_the_stored_quickstart_run():
    results = ROOT / "benchmarks" / "results"
    selection = json.loads((results / "quickstart" / "selection.json").read_text(encoding="utf-8"))
    stored = json.loads((results / "quickstart.json").read_text(encoding="utf-8"))
    assert [adapter["name"] for adapter in selection["adapters"] if adapter["kept"]] == stored["kept"]


def test_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
    words = [word for line in text.splitlines() if not line.startswith("|") for word in line.split()]
    assert len(words) <= 500


def test_no_page_installs_a_name_that_is_not_ours():
    """The name on PyPI is not ours to give: install from a clone or from a wheel file."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"pip install '?weightlora(?!-\d)", page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("place", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "src/**/*.py"])
def test_plain_english(place: str):
    """A few phrases that make a native reader stop."""
    texts = {path: " ".join(path.read_text(encoding="utf-8").replace("#", " ").split()) for path in ROOT.glob(place)}
    found = [f"{path.relative_to(ROOT)}: {phrase}" for path in texts for phrase in FORBIDDEN if phrase in texts[path]]
    assert texts and not found


def test_the_papers_tables_are_what_ran_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    here = {name: table._replace(real=tmp_path) for name, table in paper.TABLES.items()}
    monkeypatch.setattr(paper, "TABLES", here)
    page = paper.PAGE.read_text(encoding="utf-8")
    assert paper.render(page) == page, "run: python -m benchmarks.pages.paper"
    assert all(f"<!-- {name} -->\n" in page for name in here)


def test_what_ran_with_the_papers_models_takes_the_place(tmp_path: Path):
    stored = read_result(QUALITY / "rotten-tomatoes" / "results" / "lora" / "seed-0.json")
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


def test_the_results_in_the_docs_are_the_stored_ones(tmp_path: Path):
    main = load_results(QUALITY)[0]
    for root in (QUALITY, *side_comparisons_in(QUALITY)):
        page = ROOT / "docs" / "results" / ("" if root == QUALITY else root.name) / "summary.md"
        text = render_markdown(*read_summary(root, main=main))
        assert page.read_text(encoding="utf-8") == text, "run: make bench-quality"
    choices = (ROOT / "docs" / "results" / "choices.md").read_text(encoding="utf-8")
    assert choices == render_choices_markdown(main), "run: make bench-quality"
    tuning = (ROOT / "docs" / "results" / "tuning.md").read_text(encoding="utf-8")
    assert tuning == render_tuning_markdown(QUALITY), "run: make bench-quality"
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
        rate = preferred(map(read_result, folder.glob("lr-*.json")))
        assert resolve(QUALITY, folder.parents[1].name, folder.name)["learning_rate"] == rate, folder


def test_chance_after_the_selection_phase_differs_from_the_default_in_the_choice_alone():
    for task in (name for name in tasks_in(QUALITY) if "random-late" in labels_in(QUALITY, name)):
        late, default = (resolve(QUALITY, task, label) for label in ("random-late", "weightlora"))
        assert late.pop("options") == {"selection": "random"} and default.pop("options") == {}
        assert {**late, "label": None, "seeds": None} == {**default, "label": None, "seeds": None}, task
