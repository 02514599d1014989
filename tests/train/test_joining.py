"""Files whose types differ are put together with the values that they have."""

from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from weightlora.errors import DataError
from weightlora.train.joining import joined

PATHS = [Path("0.jsonl"), Path("1.jsonl")]
TAGS = ClassLabel(names=["O", "P"])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([7, None, 1.5], ["8", "true", "[1]", '"q"', "plain", None, "null"]),
        ([[{"content": "7"}]], [[{"content": ["x"]}]]),
        ([[{"a": "1"}]], [[]]),
        ([2**53 + 1], [0.5]),
    ],
)
def test_values_without_a_common_type_stay_what_they_are(one: list[Any], other: list[Any], turned: bool):
    both = [one, other][:: -1 if turned else 1]
    parts = [Dataset.from_list([{"x": value, "n": 1} for value in values]) for values in both]
    assert joined(parts, PATHS, "train")["x"][:] == both[0] + both[1]


@pytest.mark.parametrize(
    ("kind", "value"), [(Value("int64"), [1]), (TAGS, [1]), (Value("string"), ["P"]), (Value("null"), [])]
)
def test_classes_keep_their_names_beside_numbers_and_names(kind: Any, value: list[Any]):
    parts = [
        Dataset.from_list([{"tags": [0]}], features=Features({"tags": List(TAGS)})),
        Dataset.from_list([{"tags": value, "n": 1}], features=Features({"tags": List(kind), "n": Value("int64")})),
    ]
    rows = joined(parts, PATHS, "train")
    assert rows.features["tags"] == List(TAGS)
    assert list(rows) == [{"tags": [0], "n": None}, {"tags": [1] if value else [], "n": 1}]


def test_other_classes_are_refused_also_inside_lists():
    parts = [
        Dataset.from_list([{"tags": [0]}], features=Features({"tags": List(ClassLabel(names=names))}))
        for names in (["O", "P"], ["P", "O"])
    ]
    with pytest.raises(DataError, match=r"the classes of 'tags' differ \(\['O', 'P'\], \['P', 'O'\]\)"):
        joined(parts, PATHS, "train")
