"""What a benchmark run needs of a task: a model with its head, tokenized splits, a collator and metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import EvalPrediction

__all__ = ["Rows", "Workload"]

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Workload:
    """One task, ready for `transformers.Trainer`.

    Attributes:
        model: The base model with a fresh head, if it needs one.
        target: PEFT's `target_modules`, `task_type` and the like.
        train, validation, test: Tokenized rows.
        collate: Makes a batch of rows.
        metrics: `compute_metrics` of the Trainer. `held_out_loss` is of the task alone: a method's own penalty (as
            AdaLoRA's) is in the loss that the Trainer reports, and not in this one.
        metric: The name of the one that is compared.
        reported: The names of all that are stored.
        preprocess: `preprocess_logits_for_metrics` of the Trainer, where the logits are too many to keep.
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
    preprocess: Callable[[Tensor, Tensor], Tensor] | None = None
