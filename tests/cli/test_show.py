"""`weightlora show` as a person uses it."""

import json
import sys
from pathlib import Path

import pytest
from pictures import PNG
from run_directories import write_run

from weightlora.cli import main
from weightlora.selection import Selection


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "first", layers=2, steps=6, keep=4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_and_a_picture_here(first: Path, here: Path, capsys: pytest.CaptureFixture):
    assert main(["show", str(first)]) == 0
    output, error = capsys.readouterr()
    kept = Selection.load(first).target_modules
    lines = output.splitlines()
    assert lines[0].startswith("first: 4 of 14 modules are kept: ")
    assert [line.split()[0] for line in lines if " yes " in line] == kept
    assert any("kept out by the bound on parameters" in line for line in lines)
    assert "step time, median: " in output and "written: first.png" in error
    assert (here / "first.png").read_bytes().startswith(PNG)
    (here / "first.png").write_text("mine")
    assert main(["show", str(first)]) == 0
    assert (here / "first.png").read_text() == "mine" and "was left as it is" in capsys.readouterr().err


def test_the_table_needs_neither_rich_nor_matplotlib(first, here, capsys, monkeypatch):
    for name in ("rich.console", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["show", str(first)]) == 0
    output, error = capsys.readouterr()
    assert output.splitlines()[1:5] == Selection.load(first).target_modules
    assert (
        "there is no picture, because matplotlib is not installed: run pip install" in error
        and list(here.iterdir()) == []
    )


def test_the_snippet_to_paste_and_nothing_else(first: Path, here: Path, capsys: pytest.CaptureFixture):
    assert main(["show", str(first), "--format", "json"]) == 0
    output, error = capsys.readouterr()
    assert output == Selection.load(first).to("json") and error == "" and list(here.iterdir()) == []


def test_json_on_stdout(first: Path, here: Path, capsys: pytest.CaptureFixture):
    assert main(["show", str(first), "--json", "--output", "page.html", "--output", "data.json"]) == 0
    output, error = capsys.readouterr()
    data = json.loads(output)
    assert data["runs"][0]["target_modules"] == Selection.load(first).target_modules
    assert json.loads((here / "data.json").read_text()) == data
    assert (here / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert error == "written: page.html, data.json\n"


def test_several_runs(first: Path, here: Path, capsys: pytest.CaptureFixture):
    other = write_run(here / "runs" / "other", layers=2, steps=6, keep=4, seed=1)
    assert main(["show", str(first), str(other), "--output", "page.html"]) == 0
    assert "2 runs" in (here / "page.html").read_text()
    assert main(["show", str(first), str(other)]) == 0
    assert "\nother: 4 of 14 modules are kept" in capsys.readouterr().out
    assert sorted(path.name for path in here.iterdir()) == ["page.html", "runs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing does not exist: give the directory of a run."),
        (["."], ". is empty: a run writes selection.json when its training begins, so ask again then."),
        (["{}", "--format", "jsn"], "format='jsn' is not known: did you mean 'json'?"),
        (["{}", "{}", "--format", "json"], "--format is of one run, and 2 are given: give one."),
        (
            ["{}", "--format", "json", "--json"],
            "--format prints the snippet to paste and nothing else: leave out --json",
        ),
        (["{}", "--output", "a.pdf"], "--output a.pdf ends in '.pdf': give a name that ends in .html, "),
        (["{}", "{}", "--output", "a.png"], "--output a.png is of one run, and 2 are given: give one."),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(first, here, capsys, arguments: list[str], message: str):
    assert main(["show", *(argument.format(first) for argument in arguments)]) == 2
    output, error = capsys.readouterr()
    assert output == "" and error.startswith(f"weightlora show: {message}") and error.count("\n") == 1
    assert list(here.iterdir()) == []


def test_a_missing_package_names_the_extra(first, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["show", str(first), "--output", "page.html"]) == 2
    assert "pip install 'weightlora[report]'" in capsys.readouterr().err and list(here.iterdir()) == []


def test_help_has_examples(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main(["show", "--help"])
    assert stop.value.code == 0 and "weightlora show runs/first --output page.html" in capsys.readouterr().out
