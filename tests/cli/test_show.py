"""`weightlora show` as a person uses it."""

import errno
import json
import os
import re
import sys
from pathlib import Path

import pytest
from pictures import PNG
from run_directories import write_run

from weightlora.cli import main
from weightlora.cli.show import plan_outputs, write_all
from weightlora.errors import DataError
from weightlora.report import read_runs
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
    assert any("with a higher score did not fit into the bound on parameters" in line for line in lines)
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


def test_an_expression_is_alone_on_stdout_for_a_shell_to_pass_on(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = write_run(tmp_path / "run", layers=2, steps=4) / "selection.json"
    selection = json.loads(path.read_text())
    next(row for row in selection["adapters"] if row["kept"])["rank"] = 16
    path.write_text(json.dumps(selection))
    assert main(["show", str(path.parent), "--format", "regex"]) == 0
    output, error = capsys.readouterr()
    (expression,) = output.splitlines()
    kept = [row["name"] for row in selection["adapters"] if re.fullmatch(expression, row["name"])]
    assert kept == [row["name"] for row in selection["adapters"] if row["kept"]]
    assert error == "Ranks: 8 (6 modules), 16 (1 module). --format json has the rank and alpha of each.\n"
    assert main(["show", str(path.parent), "--output", str(tmp_path / "page.html")]) == 0
    assert f'<p class="note">{error.strip()}</p>' in (tmp_path / "page.html").read_text()


def test_json_on_stdout(first: Path, here: Path, capsys: pytest.CaptureFixture):
    assert main(["show", str(first), "--json", "--output", "page.html", "--output", "data.json"]) == 0
    output, error = capsys.readouterr()
    data = json.loads(output)
    assert data["runs"][0]["target_modules"] == Selection.load(first).target_modules
    assert json.loads((here / "data.json").read_text()) == data
    assert (here / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert error == "written: page.html, data.json\n"


def test_a_directory_whose_name_is_not_unicode(tmp_path: Path, here: Path):
    run = write_run(tmp_path / os.fsdecode(b"caf\xe9"), layers=2, steps=6, keep=4)
    assert main(["show", str(run), "--output", "page.html"]) == 0
    assert "<title>caf?" in (here / "page.html").read_text()


def test_names_that_a_terminal_would_obey_or_could_not_print(tmp_path: Path, here: Path, capsys):
    odd = write_run(tmp_path / "odd", layers=1, steps=1, name="a.{}.\x1b[31m\r\ud800{}")
    assert main(["show", str(odd)]) == 0
    output, error = capsys.readouterr()
    assert r"a.0.\x1b[31m\x0d\ud800mlp.up_proj" in output and not {"\x1b", "\r"} & {*output, *error}
    assert (here / "odd.png").is_file()


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
        (["{}", "--format", "jsn"], "format='jsn' is not known: the nearest is json."),
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return read_runs([write_run(root / name, layers=1, steps=3, keep=2, train_steps=9) for name in ("a", "b")])


def test_a_directory_has_each_picture_twice(runs, tmp_path: Path):
    planned = plan_outputs(runs[:1], [tmp_path / "pictures"], False)
    names = [f"{name}.{kind}" for kind in ("png", "svg") for name in ("selection", "scores", "loss")]
    assert list(planned) == [tmp_path / "pictures" / name for name in names]
    assert all((b"<svg" if path.suffix == ".svg" else PNG) in content for path, content in planned.items())
    assert list(tmp_path.iterdir()) == [], "nothing is written yet"
    assert write_all(planned) == list(planned)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted(names)


def test_several_runs_have_a_directory_each(runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("weightlora.report.pictures.draw_pictures", lambda run, kind: {"loss": run.name.encode()})
    planned = plan_outputs(runs, [tmp_path / "all"], False)
    assert {path.relative_to(tmp_path).as_posix(): content for path, content in planned.items()} == {
        f"all/{name}/loss.{kind}": name.encode() for name in "ab" for kind in ("png", "svg")
    }


def test_runs_of_one_name_have_a_directory_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    places = [write_run(tmp_path / name / "seed0", layers=1, steps=3, keep=2, train_steps=9) for name in ("a", "b")]
    monkeypatch.setattr("weightlora.report.pictures.draw_pictures", lambda run, kind: {"loss": run.name.encode()})
    planned = plan_outputs(read_runs(places), [tmp_path / "all"], False)
    assert sorted(set(planned.values())) == [str(place).encode() for place in places] and len(planned) == 4
    assert all(path.parents[1] == tmp_path / "all" for path in planned)


def test_runs_whose_paths_look_alike_have_a_directory_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names = ("a/b/c", "a-b/c", "a/b-c/c", "a/b/c/c")
    places = [write_run(Path(name), layers=1, steps=3, keep=2, train_steps=9) for name in names]
    monkeypatch.setattr("weightlora.report.pictures.draw_pictures", lambda run, kind: {"loss": run.name.encode()})
    planned = plan_outputs(read_runs(places), [tmp_path / "all"], False)
    assert {path.parent.name: content.decode() for path, content in planned.items()} == {
        "a-b-c": "a/b/c",
        "a-b-c-2": "a-b/c",
        "a-b-c-c": "a/b-c/c",
        "a-b-c-c-2": "a/b/c/c",
    }


def test_what_is_there_is_left_alone_unless_asked(runs, tmp_path: Path):
    (tmp_path / "data.json").write_text("mine")
    with pytest.raises(DataError, match=r"data\.json is there already: give another name, or --overwrite"):
        plan_outputs(runs, [tmp_path / "page.html", tmp_path / "data.json"], False)
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    write_all(plan_outputs(runs, [tmp_path / "data.json"], True))
    assert (tmp_path / "data.json").read_text().startswith('{"format": 1')
    with pytest.raises(DataError, match="is a file: give the name of a directory"):
        (tmp_path / "plain").touch()
        plan_outputs(runs, [tmp_path / "plain"], True)
    with pytest.raises(DataError, match="is a directory: give the name of a file"):
        (tmp_path / "a.html").mkdir()
        plan_outputs(runs, [tmp_path / "a.html"], True)


def test_a_picture_in_a_directory_of_pictures_is_not_replaced(runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("weightlora.report.pictures.draw_pictures", lambda run, kind: {"loss": b"new"})
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "loss.svg").write_text("mine")
    with pytest.raises(DataError, match=r"loss\.svg is there already"):
        plan_outputs(runs[:1], [tmp_path / "pictures"], False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_no_room_on_the_disk_or_none_that_works(
    number: int, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    (old := tmp_path / "old.html").write_text("old")

    def full(*_: object):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["show", str(first), "--output", str(old), "--overwrite"]) == 2
    assert f"{old} cannot be written ({os.strerror(number)}): make room" in capsys.readouterr().err
    assert old.read_text() == "old"
