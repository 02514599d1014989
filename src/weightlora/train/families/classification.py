"""Classification and regression of texts or pairs of texts by a head on the model, as in GLUE."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import DataCollatorWithPadding, EvalPrediction

from ...errors import DataError
from ...values import is_number
from ...wording import shown
from ..labels import class_ids, guess_loss
from ..result import HELD_OUT_LOSS
from ..rows import check_tokens, head_of, name_row
from ..work import Metrics, Source, Work, padder, padding, room_for, tokenized

METRICS = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "f1_macro": lambda labels, chosen: f1_score(labels, chosen, average="macro"),
    "matthews": matthews_corrcoef,
}
"""Functions of labels and predictions. `f1` is the F1 score of class 1, if there are two classes."""


def classification(source: Source) -> Work:
    """A class for each text.

    Raises:
        WeightLoraError: A label is out of range, or `max_length` is longer than the model.
    """
    names, ids = class_ids(source)
    config = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "single_label_classification",  # the checkpoint may have been trained on another one
    }

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits = _logits(prediction)
        return {
            HELD_OUT_LOSS: class_loss(prediction.label_ids, logits),
            **score_classes(source.task.metrics, prediction.label_ids, np.argmax(logits, axis=-1)),
        }

    return _work(source, ids, metrics, config, guess_loss)


def regression(source: Source) -> Work:
    """A number for each text, trained with the squared error.

    Raises:
        WeightLoraError: A label is not a number, or `max_length` is longer than the model.
    """
    numbers = {
        split: [_number(label, rows, split, row) for row, label in enumerate(_written(rows))]
        for split, rows in source.splits.items()
    }

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        labels, predicted = _numbers(prediction.label_ids), _numbers(_logits(prediction))
        return {HELD_OUT_LOSS: float(np.mean((labels - predicted) ** 2)), **score_numbers(labels, predicted)}

    # The best guess is the mean, and its squared error the variance.
    return _work(
        source, numbers, metrics, {"num_labels": 1, "problem_type": "regression"}, lambda split: float(np.var(split))
    )


def class_loss(labels: Any, logits: Any) -> float:
    """Mean negative log-likelihood of the classes. `logits` has the shape `(rows, classes)`."""
    chances = log_softmax(logits, axis=-1)  # of scikit-learn's log_loss, no row has more than 36
    return float(-np.take_along_axis(chances, np.asarray(labels)[:, None], axis=-1).mean())


def score_classes(names: tuple[str, ...], labels: Any, chosen: Any) -> dict[str, float]:
    """The named metrics of predicted classes."""
    return {name: float(METRICS[name](labels, chosen)) for name in names}


def score_numbers(labels: Any, predicted: Any) -> dict[str, float]:
    """Both correlations. They are 0 if all predictions or all labels are equal."""
    labels, predicted = _numbers(labels), _numbers(predicted)
    if len(labels) < 2 or np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    both = {"pearson": pearsonr(labels, predicted), "spearman": spearmanr(labels, predicted)}
    return {name: float(result.statistic) for name, result in both.items()}


def _numbers(values: Any) -> Any:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _written(rows: Dataset) -> list[Any]:
    """The labels of a file, which are names where it has classes."""
    names = getattr(rows.features["label"], "names", None)
    labels: list[Any] = rows["label"][:]
    return labels if names is None else [None if label in (None, -1) else names[label] for label in labels]


def _number(label: Any, rows: Dataset, split: str, row: int) -> float:
    with suppress(ValueError):  # fields of a CSV file are texts
        if (is_number(label) or isinstance(label, str)) and math.isfinite(number := float(label)):
            return number
    place = name_row(rows, split, row)
    if label is None:
        raise DataError(f"{place} has an empty field as its label: fix the row, or leave it out.")
    remedy = "fix the row, or leave it out"
    if isinstance(label, str | bool):
        remedy = "fix the row, leave it out, or use --task text-classification"
    raise DataError(f"the label {shown(label)} in {place} is not a number, and regression needs numbers: {remedy}.")


def _logits(prediction: EvalPrediction) -> Any:
    logits = prediction.predictions
    return np.asarray(logits[0] if isinstance(logits, tuple) else logits, dtype=np.float64)  # BART adds its encoder's


def _work(
    source: Source,
    labels: dict[str, list[Any]],
    metrics: Metrics,
    config: dict[str, Any],
    guess: Callable[[list[Any]], float],
) -> Work:
    length, tokenizer = room_for(source), source.tokenizer

    def tokenize(split: str, batch: dict[str, Any], indices: list[int]) -> dict[str, Any]:
        texts = [
            [head_of(tokenizer, text, length) for text in batch[name]] for name in ("text", "pair") if name in batch
        ]
        encoded = tokenizer(*texts, truncation=True, max_length=length)
        check_tokens(encoded["input_ids"], source.splits[split], split, indices)
        return {**encoded, "labels": [labels[split][index] for index in indices]}

    train, evaluation = tokenized(source, tokenize)
    # XLNet's head reads the last position, where a token has to be. Its positions are relative.
    side = "left" if source.config.model_type == "xlnet" else "right"
    return Work(
        auto_class="AutoModelForSequenceClassification",
        task_type="SEQ_CLS",
        config=config,
        train=train,
        evaluation=evaluation,
        max_tokens=source.arguments.max_length,
        collate=DataCollatorWithPadding(padder(source, side), **padding(source)),
        metrics=dict.fromkeys(evaluation, metrics),
        reported=source.task.metrics,
        units=dict.fromkeys(source.task.metrics, "fraction"),
        guess_losses={split: guess(labels[split]) for split in evaluation},
    )
