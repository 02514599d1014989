"""Workloads of an encoder with a fresh head: classes, or one number (regression)."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_squared_error
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
)

from . import Task, load_task
from .local import load_local
from .sentiment import ENCODER_LINEARS, minilm_path
from .workload import Workload

__all__ = ["local_classification", "minilm"]


def minilm(name: str, experiment: Mapping[str, Any]) -> Workload:
    """MiniLM-L6 on one of the tasks of `load_task`: all 36 linear modules of its encoder may be adapted.

    Raises:
        ValueError: If the package with the model or the data is missing.
    """
    return _with_head(minilm_path(), load_task(name), experiment, ENCODER_LINEARS)


def local_classification(experiment: Mapping[str, Any]) -> Workload:
    """A local JSONL file and any model that Transformers can load: all its linear modules may be adapted.

    Raises:
        ValueError: If the file is malformed, or the model cannot be loaded.
    """
    task = load_local(experiment["data"], experiment["text_column"], experiment["label_column"])
    return _with_head(experiment["model"], task, experiment, "all-linear")


def _with_head(
    model_path: str | os.PathLike[str], task: Task, experiment: Mapping[str, Any], targets: str
) -> Workload:
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path)
        model = AutoModelForSequenceClassification.from_pretrained(model_path, num_labels=task.num_labels)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the model {model_path} cannot be loaded for classification: {reason}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    splits = {
        name: task.tokenize(rows[: experiment.get(f"{name}_examples")], tokenizer, experiment["max_length"])
        for name, rows in task.splits.items()
    }
    regression = task.num_labels == 1
    return Workload(
        model=model,
        target={"target_modules": targets, "task_type": "SEQ_CLS"},
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        collate=DataCollatorWithPadding(tokenizer, padding="max_length", max_length=experiment["max_length"]),
        metrics=_correlation if regression else _accuracy,
        metric="pearson" if regression else "accuracy",
        reported=("pearson", "spearman") if regression else ("accuracy", "f1_macro"),
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


def _correlation(prediction: EvalPrediction) -> dict[str, float]:
    predicted, labels = (
        np.asarray(values, dtype=np.float64).reshape(-1) for values in (prediction.predictions, prediction.label_ids)
    )
    return {
        "held_out_loss": float(mean_squared_error(labels, predicted)),
        "pearson": float(pearsonr(labels, predicted).statistic),
        "spearman": float(spearmanr(labels, predicted).statistic),
    }
