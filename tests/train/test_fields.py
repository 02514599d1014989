"""Fields of CSV files that are texts, and those that are numbers."""

from pathlib import Path
from typing import Any

import pytest

from weightlora.train.data import read_splits
from weightlora.train.fields import readers_for
from weightlora.train.settings import DataArguments
from weightlora.train.tasks import find_task


def labels_in(path: Path, fields: list[str], task: str = "text-classification") -> list[Any]:
    path.write_text("text,label\n" + "".join(f"text {place},{field}\n" for place, field in enumerate(fields)))
    arguments = DataArguments(task=task, train_file=str(path), validation_file=str(path))
    labels: list[Any] = read_splits(arguments, find_task(task))["train"]["label"][:]
    return labels


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        (["007", "008"], ["007", "008"]),
        (["00", "1"], ["00", "1"]),
        (["1.0", "01.0"], ["1.0", "01.0"]),
        (["12345678901234567890123", "1"], ["12345678901234567890123", "1"]),
        (["7", "word", "08"], ["7", "word", "08"]),
        (["1", "0", "-1"], [1, 0, -1]),
        ([" 1", "0 "], [1, 0]),
        (["1.0", "0", ""], [1.0, 0.0, None]),
        (["True", "false", "TRUE"], [True, False, True]),
        (["true", "no"], ["true", "no"]),
        (["", '"a, b"', " c"], [None, "a, b", " c"]),
    ],
)
def test_labels_are_numbers_only_where_these_are_written_the_same(tmp_path: Path, fields, labels):
    found = labels_in(tmp_path / "rows.csv", fields)
    assert found == labels and list(map(type, found)) == list(map(type, labels))


def test_the_values_of_a_regression_are_numbers_however_they_are_written(tmp_path: Path):
    assert labels_in(tmp_path / "rows.csv", ["007", "1.50"], "regression") == [7.0, 1.5]


def test_the_columns_of_texts_are_those_that_the_user_names():
    columns = {"text": "body", "pair": None, "label": "stars"}
    assert readers_for("text-classification", columns).keys() == {"body", "stars"}
    assert readers_for("regression", columns).keys() == {"body"}
    assert {"instruction", "text"} <= readers_for("causal-lm", {"text": "text", "messages": "messages"}).keys()
