"""Files whose types differ are put together with the values that they have."""

from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from weightlora.errors import DataError
from weightlora.train.joining import joined
from weightlora.train.verbatim import as_written

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


def test_an_unknown_class_is_named():
    parts = [
        Dataset.from_list([{"label": 0}], features=Features({"label": TAGS})),
        Dataset.from_list([{"label": "neutral"}]),
    ]
    with pytest.raises(DataError, match=r"not all values of 'label' are one of its classes, \['O', 'P'\] .*neutral"):
        joined(parts, PATHS, "train")


@pytest.mark.parametrize("number", [1, [1]])
def test_numbers_beside_classes_with_numbers_as_names_are_refused(number: Any):
    """They would be places in one file, and are names in all others."""
    classes = ClassLabel(names=["1", "2", "3"])
    feature = List(classes) if isinstance(number, list) else classes
    parts = [
        Dataset.from_list([{"label": number}], features=Features({"label": feature})),
        Dataset.from_list([{"label": number}]),
    ]
    with pytest.raises(DataError, match=r"have numbers as names .* which may be names or places; write them as texts"):
        joined(parts, PATHS, "train")


def test_classes_of_different_fields_may_differ():
    kinds = {"ner": TAGS, "pos": ClassLabel(names=["N", "V"])}
    value = {"ner": 0, "pos": 1}
    parts = [
        Dataset.from_list([{"x": value}], features=Features({"x": kinds})),
        Dataset.from_list([{"x": value}]),
    ]
    assert joined(parts, PATHS, "train").features["x"] == kinds


def test_objects_that_become_json_have_no_fields_of_other_rows():
    """Arrow gives each row all fields, and a chat template would write them."""
    calls = [{"arguments": {"city": "Paris"}}, {"arguments": {"n": 7.9007}}]
    parts = [Dataset.from_list([{"x": call} for call in calls]), Dataset.from_list([{"x": "text"}])]
    assert parts[0]["x"][0] == {"arguments": {"city": "Paris", "n": None}}
    rows = joined(parts, PATHS, "train")
    assert [as_written(value, rows.features["x"]) for value in rows["x"]] == [*calls, "text"]
