"""What a benchmark run needs of a task: a model with its head, tokenized splits, a collator and metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
)

from . import load_task
from .sentiment import minilm_path

MINILM_TARGETS = r".*encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|.*dense)"
SENTIMENT = {"rotten-tomatoes": "rotten_tomatoes", "imdb": "imdb"}

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Workload:
    """One task, ready for `transformers.Trainer`.

    Attributes:
        model: The base model with a fresh head.
        target: PEFT's `target_modules`, `task_type` and the like.
        train, validation, test: Tokenized rows.
        collate: Makes a batch of rows.
        metrics: `compute_metrics` of the Trainer. `held_out_loss` is of the task alone: a method's own penalty (as
            AdaLoRA's) is in the loss that the Trainer reports, and not in this one.
        metric: The name of the one that is compared; higher is better.
        reported: The names of all that are stored.
    """

    model: nn.Module
    target: dict[str, Any]
    train: Rows
    validation: Rows
    test: Rows
    collate: Callable[[Rows], Any]
    metrics: Callable[[EvalPrediction], dict[str, float]]
    metric: str
    reported: tuple[str, ...]


def load_workload(experiment: dict[str, Any]) -> Workload:
    """Load the task that the experiment names.

    Raises:
        ValueError: If there is no such task, or its data is missing.
    """
    if experiment["task"] not in SENTIMENT:
        raise ValueError(f"task {experiment['task']!r} is unknown: choose one of {', '.join(SENTIMENT)}.")
    task = load_task(SENTIMENT[experiment["task"]])
    return _classification(minilm_path(), task, experiment, MINILM_TARGETS)


def _classification(model_path: Path, task: Any, experiment: dict[str, Any], targets: str) -> Workload:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForSequenceClassification.from_pretrained(model_path, num_labels=task.num_labels)
    splits = {
        name: task.tokenize(rows[: experiment.get(f"{name}_examples")], tokenizer, experiment["max_length"])
        for name, rows in task.splits.items()
    }
    return Workload(
        model=model,
        target={"target_modules": targets, "task_type": "SEQ_CLS"},
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        collate=DataCollatorWithPadding(tokenizer, padding="max_length", max_length=experiment["max_length"]),
        metrics=_accuracy,
        metric="accuracy",
        reported=("accuracy", "f1_macro"),
    )


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = np.asarray(prediction.predictions, dtype=np.float64)
    chosen = np.argmax(logits, axis=-1)
    return {
        "held_out_loss": float(
            log_loss(prediction.label_ids, softmax(logits, axis=-1), labels=range(logits.shape[-1]))
        ),
        "accuracy": float(accuracy_score(prediction.label_ids, chosen)),
        "f1_macro": float(f1_score(prediction.label_ids, chosen, average="macro")),
    }
