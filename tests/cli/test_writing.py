"""Everything is made before anything is written, and a disk that is full leaves nothing behind."""

import errno
from pathlib import Path

import pytest
from run_directories import write_run

from weightlora.cli import writing
from weightlora.cli.writing import plan_outputs, write_all
from weightlora.errors import DataError
from weightlora.report import read_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return read_runs([write_run(root / name, layers=1, steps=3, keep=2, train_steps=9) for name in ("a", "b")])


def test_a_directory_has_each_picture_twice(runs, tmp_path: Path):
    planned = plan_outputs(runs[:1], [tmp_path / "pictures"], False)
    names = [f"{name}.{kind}" for kind in ("png", "svg") for name in ("selection", "scores", "loss")]
    assert list(planned) == [tmp_path / "pictures" / name for name in names]
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


def test_a_picture_in_a_directory_of_pictures_is_not_replaced(runs, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "loss.svg").write_text("mine")
    with pytest.raises(DataError, match=r"loss\.svg is there already"):
        plan_outputs(runs[:1], [tmp_path / "pictures"], False)


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "old.html").write_text("old")
    real, written = writing.write, []

    def full_at_the_third(path, writer):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return real(path, writer)

    monkeypatch.setattr(writing, "write", full_at_the_third)
    contents = {tmp_path / name: b"new" for name in ("new.html", "deep/a.png", "old.html")}
    with pytest.raises(DataError, match=r"old\.html cannot be written \(No space left on device\): make room"):
        write_all(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "old"
