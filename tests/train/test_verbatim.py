"""Values are those of the file, whatever Arrow and JSON make of them."""

from typing import Any

import pytest
from datasets import Dataset, Features, Json, List

from weightlora.train.verbatim import DEEPEST_ROW, as_written, parsed


@pytest.mark.parametrize(
    ("given", "expected"),
    [('[{"a": 1}]', [{"a": 1}]), ("plain", "plain"), ([1], [1]), (None, None), ("[" * 9999, "[" * 9999)],
)
def test_parts_may_be_written_as_json(given: Any, expected: Any):
    assert parsed(given) == expected


def test_what_arrow_could_not_store_stays_a_text():
    fits, deep = ("[" * levels + "]" * levels for levels in (DEEPEST_ROW + 1, DEEPEST_ROW + 2))
    assert isinstance(parsed(fits), list) and parsed(deep) == deep


def test_fields_of_other_rows_are_left_out_and_those_of_json_stay():
    rows = [{"typed": [{"a": 1}, {"b": 2}], "free": [{"a": None, "x": 7.9007}]}]
    data = Dataset.from_list(rows, Features({**Dataset.from_list(rows).features, "free": List(Json())}))
    assert data[0]["typed"][0] == {"a": 1, "b": None}
    assert as_written(data[0], data.features) == rows[0]
