"""A user's own file: read, split and refused with a sentence."""

import json

import pytest

from weightlora.tasks.local import load_local


def write(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def rows():
    return [{"text": f"text number {index}", "label": ["yes", "no", "maybe"][index % 3]} for index in range(60)]


def test_labels_are_numbered_in_order_and_no_text_is_in_two_splits(tmp_path, rows):
    task = load_local(write(tmp_path / "votes.jsonl", [*rows, "", rows[0]]))
    assert (task.name, task.num_labels) == ("votes", 3)
    assert {name: len(split) for name, split in task.splits.items()} == {"test": 12, "validation": 6, "train": 42}
    all_rows = [row for split in task.splits.values() for row in split]
    assert len({row["text"] for row in all_rows}) == 60
    numbers = {row["text"]: row["label"] for row in all_rows}
    assert [numbers[row["text"]] for row in rows[:3]] == [2, 1, 0]


def test_the_split_does_not_depend_on_the_order_of_the_file(tmp_path, rows):
    one, other = (load_local(write(tmp_path / f"{i}.jsonl", r)) for i, r in enumerate((rows, rows[::-1])))
    assert one.splits == other.splits


def test_other_columns_can_be_named(tmp_path, rows):
    renamed = [{"sentence": row["text"], "class": index % 2} for index, row in enumerate(rows)]
    assert load_local(write(tmp_path / "a.jsonl", renamed), "sentence", "class").num_labels == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"a\.jsonl, line 61 is no JSON"),
        ("[1]", r"line 61 is no JSON object"),
        ({"txt": "a", "label": 0}, r"line 61 has no 'text': it has 'txt', 'label'"),
        ({"text": "a"}, r"line 61 has no 'label'"),
        ({"text": 3, "label": 0}, r"line 61: text is 3"),
        ({"text": " ", "label": 0}, r"line 61: text is ' '"),
        ({"text": "a", "label": 0.5}, r"line 61: label is 0\.5"),
        ({"text": "a", "label": True}, r"line 61: label is True"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, rows, line, message):
    with pytest.raises(ValueError, match=message):
        load_local(write(tmp_path / "a.jsonl", [*rows, line]))


def test_too_little_data_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="has 30 distinct texts of 3 classes"):
        load_local(write(tmp_path / "a.jsonl", rows[:30]))
    with pytest.raises(ValueError, match="60 distinct texts of 1 classes"):
        load_local(write(tmp_path / "a.jsonl", [row | {"label": 1} for row in rows]))
    with pytest.raises(ValueError, match=r"b\.jsonl is no file"):
        load_local(tmp_path / "b.jsonl")
