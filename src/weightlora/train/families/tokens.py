"""A class for each word of a sentence. The first token of a word has its label, the other tokens have none."""

import re
from itertools import chain
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from transformers import DataCollatorForTokenClassification, EvalPrediction

from ...errors import ConfigError, DataError
from ..labels import class_ids, guess_loss
from ..result import HELD_OUT_LOSS
from ..rows import check_tokens, name_row, words_of
from ..work import IGNORED, Source, Work, padder, padding, room_for, tokenized
from .classification import class_loss

OUTSIDE = "O"

UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff60]")
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters, which have no spaces between words."""


def token_classification(source: Source) -> Work:
    """Rows are lists of words (`tokens`) and of as many labels (`tags`).

    Raises:
        DataError: The lists differ in length, or a label is out of range.
        ConfigError: `max_length` is longer than the model, or the tokenizer is not a fast one.
    """
    length, tokenizer = room_for(source), source.tokenizer
    if not tokenizer.is_fast:
        raise ConfigError(
            "token classification needs a fast tokenizer, for the word of each token: choose another model."
        )
    for split, rows in source.splits.items():
        for row, (tokens, tags) in enumerate(zip(rows["tokens"], rows["tags"], strict=True)):
            if len(tokens) != len(tags):
                raise DataError(
                    f"{name_row(rows, split, row)} has {len(tokens)} tokens and {len(tags)} tags: give one tag per "
                    "token."
                )
    names, ids = class_ids(source, "tags")
    spaced = _needs_spaces(tokenizer)

    def tokenize(split: str, batch: dict[str, Any], indices: list[int]) -> dict[str, Any]:
        sentences = [_with_spaces(words) if spaced else words for words in batch["tokens"]]
        words = [words_of(tokenizer, words, length) for words in sentences]
        encoded = tokenizer(words, truncation=True, max_length=length, is_split_into_words=True)
        check_tokens(encoded["input_ids"], source.splits[split], split, indices)
        labels = [_first_pieces(encoded.word_ids(i), ids[split][index]) for i, index in enumerate(indices)]
        return {**encoded, "labels": labels}

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        labels = np.asarray(prediction.label_ids)
        counted = labels != IGNORED
        logits, labels = np.asarray(prediction.predictions)[counted].astype(np.float64), labels[counted]
        return {HELD_OUT_LOSS: class_loss(labels, logits), **score_tokens(names, labels, np.argmax(logits, axis=-1))}

    train, evaluation = tokenized(source, tokenize)
    return Work(
        auto_class="AutoModelForTokenClassification",
        task_type="TOKEN_CLS",
        config={"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}},
        train=train,
        evaluation=evaluation,
        max_tokens=source.arguments.max_length,
        collate=DataCollatorForTokenClassification(padder(source), **padding(source)),
        metrics=dict.fromkeys(evaluation, metrics),
        reported=source.task.metrics,
        units=dict.fromkeys(source.task.metrics, "fraction"),
        guess_losses={split: guess_loss(chain.from_iterable(ids[split])) for split in evaluation},
    )


def score_tokens(names: list[str], labels: Any, chosen: Any) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 over all words of any class but `O`."""
    inside = [number for number, name in enumerate(names) if name != OUTSIDE]
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, chosen, labels=inside, average="micro", zero_division=0
    )
    scores = {"f1": f1, "precision": precision, "recall": recall, "accuracy": accuracy_score(labels, chosen)}
    return {name: float(score) for name, score in scores.items()}


def _needs_spaces(tokenizer: Any) -> bool:
    """Whether words have to begin with a space to get the tokens that they have in a text.

    The tokenizers of RoBERTa, GPT-2, Llama 3 and others have tokens with the space before a word. Words of a list have
    none, and would all get the tokens of the middle of a word.
    """

    def tokens(text: str | list[str]) -> list[int]:
        found: list[int] = tokenizer(text, is_split_into_words=isinstance(text, list)).input_ids
        return found

    return tokens(["a", "a"]) != tokens("a a") == tokens(_with_spaces(["a", "a"]))


def _with_spaces(words: list[str]) -> list[str]:
    """The words with a space before each but the first, where their script has spaces."""
    return [f" {word}" if place and word and not UNSPACED.match(word) else word for place, word in enumerate(words)]


def _first_pieces(words: list[int | None], labels: list[int]) -> list[int]:
    before = [None, *words][: len(words)]  # without special tokens, an empty sentence has none
    return [
        IGNORED if word is None or word == last else labels[word] for word, last in zip(words, before, strict=True)
    ]
