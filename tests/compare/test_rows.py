"""Splits: deterministic, without a text in two of them, and what cannot be split."""

import json
from dataclasses import replace

import pytest
from datasets import Dataset

from weightlora.compare.rows import make_for, partition, split_rows
from weightlora.train import parse, prepare
from weightlora.train.settings import DataArguments
from weightlora.train.tasks import TASKS

TASK = TASKS["text-classification"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(rows):
    return set(rows["text"])


def test_rows_of_one_text_stay_together_and_their_order_does_not_matter():
    rows = [{"text": f"t{i % 50}", "label": i} for i in range(100)]
    splits = partition(Dataset.from_list(rows), {"test": 0.2, "validation": 0.1}, "here")
    assert {name: len(split) for name, split in splits.items()} == {"train": 70, "test": 20, "validation": 10}
    assert not texts(splits["train"]) & texts(splits["test"])
    assert sorted(label for split in splits.values() for label in split["label"]) == list(range(100))
    again = partition(Dataset.from_list(rows[::-1]), {"test": 0.2, "validation": 0.1}, "here")
    assert texts(again["test"]) == texts(splits["test"])


@pytest.mark.parametrize("column", ["context", "source", "prompt", "tokens", "messages"])
def test_every_family_has_a_column_to_split_by(column):
    values = [
        [f"a{i}"] if column == "tokens" else [{"role": f"a{i}"}] if column == "messages" else f"a{i}"
        for i in range(40)
    ]
    splits = partition(Dataset.from_list([{column: value} for value in values]), {"test": 0.2}, "here")
    assert (len(splits["train"]), len(splits["test"])) == (32, 8)


def test_chats_of_one_question_are_in_one_split():
    chats = [
        [{"role": "user", "content": f"q{i % 50}"}, {"role": "assistant", "content": f"a{i}"}] for i in range(100)
    ]
    splits = partition(Dataset.from_list([{"messages": chat} for chat in chats]), {"test": 0.2}, "here")
    asked = {name: {chat[0]["content"] for chat in split["messages"]} for name, split in splits.items()}
    assert {name: len(questions) for name, questions in asked.items()} == {"train": 40, "test": 10}
    assert not asked["train"] & asked["test"]


def test_a_validation_file_is_the_test(tmp_path):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(60)]
    arguments = DataArguments(
        train_file=write(tmp_path / "a.jsonl", rows[:50]), validation_file=write(tmp_path / "b.jsonl", rows[50:])
    )
    splits, names = split_rows(arguments, TASK, str(tmp_path), with_validation=False)
    assert (len(splits["train"]), texts(splits["test"])) == (50, {f"t{i}" for i in range(50, 60)})
    assert names == ["0", "1"]
    splits, _ = split_rows(arguments, TASK, str(tmp_path), with_validation=True)
    assert {name: len(split) for name, split in splits.items()} == {"train": 45, "validation": 5, "test": 10}


def test_a_class_that_the_training_rows_lack_is_known(place, tmp_path):
    rows = [{"text": f"t{i}", "label": "abc"[i % 2] if i < 50 else "c"} for i in range(52)]
    path = write(tmp_path / "a.jsonl", rows)
    recipe = parse(["--model", str(place / "deberta"), "--task", "text-classification", "--train_file", path])
    make = make_for("test", False)
    job = prepare(replace(recipe, data=replace(recipe.data, max_length=16)), make=make)
    assert list(job.work.config["id2label"].values()) == ["a", "b", "c"]
    assert list(job.work.evaluation) == ["test"] and list(job.plan.rows) == ["train", "validation", "test"]
    assert sum(job.plan.rows.values()) == len(rows)
    assert make(replace(recipe, data=replace(recipe.data, max_length=16)), None, None) is job.work, "made once"
    assert list(prepare(recipe, make=make_for("validation", True)).work.evaluation) == ["validation"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": f"t{i}", "label": i % 2} for i in range(39)], "has 39 distinct texts, and .* at least 40"),
        ([{"text": f"t{i % 9}", "label": i % 2} for i in range(90)], "has 9 distinct texts"),
        (
            [{"text": f"t{i}", "label": "a"} for i in range(50)],
            "all rows have the label 'a', and .* at least 2 classes",
        ),
        ([{"text": f"t{i}", "label": 3} for i in range(50)], "all rows have the label 3"),
        ([], "is empty"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, rows, message):
    arguments = DataArguments(train_file=write(tmp_path / "a.jsonl", rows))
    with pytest.raises(ValueError, match=message):
        split_rows(arguments, TASK, str(tmp_path), with_validation=True)


@pytest.mark.parametrize("labels", [(1, 2), (1.0, 2.0)])
def test_a_class_that_no_row_has_is_told(tmp_path, labels):
    rows = [{"text": f"t{i}", "label": labels[i % 2]} for i in range(60)]
    arguments = DataArguments(train_file=write(tmp_path / "a.jsonl", rows))
    with pytest.warns(UserWarning, match="no row has the label 0: there are 3 classes"):
        _, names = split_rows(arguments, TASK, str(tmp_path), with_validation=False)
    assert names == ["0", "1", "2"]


def test_a_row_of_the_validation_split_is_checked_before_the_first_run(place, tmp_path):
    rows = [{"text": f"t{i}", "label": float(i % 2)} for i in range(60)]
    held = partition(Dataset.from_list(rows), {"test": 0.2, "validation": 0.1}, "here")["validation"]["text"][0]
    rows = [{**row, "label": 0.5} if row["text"] == held else row for row in rows]
    path = write(tmp_path / "a.jsonl", rows)
    recipe = parse(["--model", str(place / "deberta"), "--task", "text-classification", "--train_file", path])
    with pytest.raises(ValueError, match=r"the label 0\.5 in .* is neither a whole number nor a name"):
        make_for("test", True)(recipe, None, None)
