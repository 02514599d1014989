"""Files appear whole or not at all, and a history that was cut short is read up to the cut."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from weightlora import files
from weightlora.errors import DataError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = files.write_json(tmp_path / "new" / "a.json", {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1}

    def half(partial):
        partial.write_text("half of")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        files.write(path, half)
    assert error.value.filename == str(path)
    assert json.loads(path.read_text()) == {"b": 1}
    assert [other.name for other in path.parent.iterdir()] == ["a.json"]


def test_numbers_that_are_no_json_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_lines_are_appended_and_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "history.jsonl"
    files.append_lines(path, [{"step": 1}, {"step": 2}])
    files.append_lines(path, [{"step": 3}])
    assert files.read_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3}]
    path.write_text(path.read_text()[:-4])
    assert files.read_lines(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"a": NaN}', "line 2 is not JSON"),
        ('{"a": -1e999}', "line 2 is not JSON"),
    ],
)
def test_a_damaged_line_in_the_middle_is_refused(tmp_path, line, message):
    path = tmp_path / "history.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(DataError, match=message):
        files.read_lines(path)


def test_what_is_moved_aside_takes_no_place_that_is_taken(tmp_path):
    for number, name in enumerate(["a.json.aside", "a.json.aside-2", "a.json.aside-3"]):
        (tmp_path / "a.json").write_text(str(number))
        assert files.move_aside(tmp_path / "a.json") == tmp_path / name and not (tmp_path / "a.json").exists()
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["0", "1", "2"]


def test_a_link_to_nothing_and_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"dangling is a link to .*gone, which is not there: make that directory"):
        files.check_writable(tmp_path / "dangling")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    if sys.version_info < (3, 13):  # which leaves such links as they are
        with pytest.raises(DataError, match=r"one' cannot be followed \(.*\): give another place\.$"):
            files.resolved(tmp_path / "one")
    with pytest.raises(DataError, match="cannot be used as a directory"):
        files.check_writable(tmp_path / "one")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(28, "No space left on device"), True),
        (SafetensorError("I/O error: No space left on device"), True),
        (Exception("No space left on device (os error 28)"), True),  # of tokenizers
        (ValueError("odd"), False),
        (KeyError("odd"), False),
    ],
)
def test_errors_of_writing(error, found):
    assert files.is_of_writing(error) == found


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a directory that you may write to"):
        files.check_writable(tmp_path / "file" / "run")
    files.check_writable(tmp_path / "new" / "run")


@pytest.mark.parametrize(("name", "reason"), [("x" * 5000, "File name too long"), ("a\0b", "null")])
def test_what_cannot_be_a_name_is_refused(tmp_path, name, reason):
    with pytest.raises(DataError, match=f"cannot be used as a directory: .*{reason}") as refusal:
        files.check_writable(tmp_path / name)
    assert len(str(refusal.value)) < 300


def test_a_place_behind_a_directory_that_may_not_be_searched_is_refused(tmp_path, monkeypatch):
    """Before Python 3.14, exists() raises there."""

    def refused(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(DataError, match="cannot be used as a directory: Permission denied"):
        files.check_writable(tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"NaN", b"1e999", b"\xff", b"1" * 400, bytes(100)])
def test_what_is_not_json_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json is not whole JSON"):
        files.read_json(tmp_path / "a.json")


def test_json_is_read_up_to_a_size(tmp_path, monkeypatch):
    path = files.write_json(tmp_path / "a.json", [1, 2, 3])
    assert files.read_json(path) == [1, 2, 3]
    monkeypatch.setattr(files, "LARGEST_JSON", 10)
    with pytest.raises(DataError, match="is the most that is read"):
        files.read_json(path)
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file or directory\)$"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file or directory\): give another\.$"):
        files.read_json(tmp_path / "none.json", "give another")


@pytest.mark.parametrize("content", [b"\xff\n{}\n", b"[" * 100_000 + b"\n{}\n"])
def test_a_history_of_anything_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "history.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="delete"):
        files.read_lines(tmp_path / "history.jsonl")


def test_a_checksum_is_that_of_the_whole_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(bytes(2**20 + 1))
    assert files.sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_of(tmp_path / "b") == hashlib.sha256(bytes(2**20 + 1)).hexdigest()
