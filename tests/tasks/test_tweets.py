"""The tweets: the real archive where it is installed, and a message where it is not."""

import sys

import pytest

from weightlora.tasks import load_task, tweets


def test_a_line_is_parsed():
    assert tweets.parse("7\t-1.36\tlate &amp; cold ") == {"text": "late & cold", "label": -1.36}


def test_the_real_tweets():
    task = load_task("vader_tweets")
    assert {name: len(rows) for name, rows in task.splits.items()} == tweets.SPLIT_SIZES
    labels = [row["label"] for rows in task.splits.values() for row in rows]
    assert -4 <= min(labels) < -2 and 2 < max(labels) <= 4
    assert task.num_labels == 1


def test_a_missing_archive_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ValueError, match="run make setup, or pip download"):
        load_task("vader_tweets")
