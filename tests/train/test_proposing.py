import json

import pytest
from datasets import Dataset

from weightlora.train.proposing import example_for, pair_in
from weightlora.train.tasks import COLUMNS


@pytest.mark.parametrize(
    ("family", "names", "name", "proposed"),
    [
        (
            "text-classification",
            "premise hypothesis label",
            "text",
            {"text": "premise", "pair": "hypothesis"},
        ),
        ("text-classification", "id sentence1 sentence2 gold", "text", None),
        ("text-classification", "review stars", "text", {"text": "review", "label": "stars"}),
        ("text-classification", "idx body", "label", {"label": "your_column", "text": "body"}),
        ("seq2seq", "id article highlights", "source", {"source": "article", "target": "highlights"}),
        ("seq2seq", "source instruction output", "target", {"target": "output", "source": "instruction"}),
        ("seq2seq", "id first second", "source", {"source": "your_column"}),
        ("seq2seq", "id source other", "target", {"target": "other"}),
        ("seq2seq", "source tragets", "target", {"target": "tragets"}),
    ],
)
def test_columns_are_proposed_together_and_no_number_or_name_of_a_row(family, names, name, proposed):
    rows = Dataset.from_list([dict.fromkeys(names.split(), "a")])
    example = example_for(rows, COLUMNS[family], {}, name)
    if proposed is None:
        proposed = {"text": "sentence1", "pair": "sentence2", "label": "gold"}
    assert json.loads(example.removeprefix("--columns '").removesuffix("'")) == proposed


def test_a_column_without_texts_is_not_proposed_for_a_text():
    rows = Dataset.from_list([{"translation": {"en": "a", "de": "b"}, "answer": ["a"], "question": "q"}])
    assert pair_in(rows) == ("question", None)
    assert example_for(rows, COLUMNS["seq2seq"], {}, "target") == (
        """--columns '{"target": "your_column", "source": "question"}'"""
    )


def test_what_the_user_named_stays():
    rows = Dataset.from_list([{"review": "a", "title": "b", "stars": 1}])
    both = Dataset.from_list([{"premise": "a", "hypothesis": "b", "label": 1}])
    example = example_for(both, COLUMNS["regression"] | {"pair": "other"}, {"pair": "other"}, "text")
    assert example == """--columns '{"pair": "other", "text": "premise"}'"""
    example = example_for(rows, {"text": "title", "label": "label"}, {"text": "title"}, "label")
    assert example == """--columns '{"text": "title", "label": "stars"}'"""
