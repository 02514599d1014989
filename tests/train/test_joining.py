"""Files whose types differ are put together with the values that they have."""

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from weightlora.train.joining import joined
from weightlora.train.verbatim import as_written

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
    assert joined(parts)["x"][:] == both[0] + both[1]


@pytest.mark.parametrize(
    ("kind", "value"), [(Value("int64"), [1]), (TAGS, [1]), (Value("string"), ["P"]), (Value("null"), [])]
)
def test_classes_keep_their_names_beside_numbers_and_names(kind: Any, value: list[Any]):
    parts = [
        Dataset.from_list([{"tags": [0]}], features=Features({"tags": List(TAGS)})),
        Dataset.from_list([{"tags": value, "n": 1}], features=Features({"tags": List(kind), "n": Value("int64")})),
    ]
    rows = joined(parts)
    assert rows.features["tags"] == List(TAGS)
    assert list(rows) == [{"tags": [0], "n": None}, {"tags": [1] if value else [], "n": 1}]


def of_classes(value: Any, names: list[str]) -> Dataset:
    """A row of numbers that are classes."""
    label = ClassLabel(names=names)
    kind = List(label) if isinstance(value, list) else label
    return Dataset.from_list([{"x": value}], features=Features({"x": kind}))


@pytest.mark.parametrize(
    ("one", "other", "names", "expected"),
    [
        (of_classes([0, 1], ["O", "P"]), of_classes([0, 1], ["P", "O"]), ["O", "P"], [[0, 1], [1, 0]]),
        (of_classes(0, ["W", "S", "B"]), of_classes(2, ["S", "W", "H"]), ["W", "S", "B", "H"], [0, 3]),
        (
            of_classes(0, ["P", "O"]),
            Dataset.from_list([{"x": "neutral"}, {"x": "O"}]),
            ["P", "O", "neutral"],
            [0, 2, 1],
        ),
        (of_classes(0, ["1.0", "2.0"]), Dataset.from_list([{"x": "1"}]), ["1.0", "2.0", "1"], [0, 2]),
        (of_classes(-1, ["O", "P"]), Dataset.from_list([{"x": ""}, {"x": None}]), ["O", "P"], [-1, None, None]),
        (of_classes([1], ["O", "P"]), Dataset.from_list([{"x": []}, {"x": None}]), ["O", "P"], [[1], [], None]),
        (of_classes(1, ["O", "P"]), Dataset.from_list([{"y": 1}]), ["O", "P"], [1, None]),
    ],
)
def test_classes_go_by_their_names_in_the_order_in_which_they_come(one: Any, other: Any, names: Any, expected: Any):
    rows = joined([one, other])
    feature = rows.features["x"]
    assert getattr(feature, "feature", feature).names == names and rows["x"][:] == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (of_classes(1, ["1", "2"]), Dataset.from_list([{"x": 1}]), ["2", 1]),
        (of_classes([1], ["1", "2"]), Dataset.from_list([{"x": [1.0]}]), [["2"], [1.0]]),
        (of_classes(0, ["-1.0", "1.0"]), Dataset.from_list([{"x": 1}]), ["-1.0", 1]),
        (of_classes(0, ["False", "True"]), Dataset.from_list([{"x": True}]), ["False", True]),
        (of_classes(1, ["O", "P"]), Dataset.from_list([{"x": 1.5}]), ["P", 1.5]),
        (of_classes(1, ["O", "P"]), Dataset.from_list([{"x": ["O"]}]), ["P", ["O"]]),
    ],
)
def test_what_may_be_no_place_among_classes_stays_what_it_is(one: Any, other: Any, expected: list[Any]):
    assert joined([one, other])["x"][:] == expected


def test_a_number_is_no_place_where_files_number_classes_differently():
    parts = [of_classes(0, ["O", "P"]), of_classes(0, ["P", "O"]), Dataset.from_list([{"x": 1}])]
    assert joined(parts)["x"][:] == ["O", "P", 1]


def test_numbers_are_places_where_places_are_names():
    rows = joined([of_classes(1, ["0", "1"]), Dataset.from_list([{"x": 0}])])
    assert isinstance(rows.features["x"], ClassLabel) and rows["x"][:] == [1, 0]


def test_classes_inside_objects_are_numbers():
    """Nothing reads them, and another field may be in one file alone."""
    kinds = {"level": ClassLabel(names=["easy", "hard"])}
    parts = [
        Dataset.from_list([{"x": {"level": 1}}], features=Features({"x": kinds})),
        Dataset.from_list([{"x": {"level": 0, "src": "web"}}]),
    ]
    assert joined(parts)["x"][:] == [{"level": 1, "src": None}, {"level": 0, "src": "web"}]


def test_objects_that_become_json_have_no_fields_of_other_rows():
    """Arrow gives each row all fields, and a chat template would write them."""
    calls = [{"arguments": {"city": "Paris"}}, {"arguments": {"n": 7.9007}}]
    parts = [Dataset.from_list([{"x": call} for call in calls]), Dataset.from_list([{"x": "text"}])]
    assert parts[0]["x"][0] == {"arguments": {"city": "Paris", "n": None}}
    rows = joined(parts)
    assert [as_written(value, rows.features["x"]) for value in rows["x"]] == [*calls, "text"]
