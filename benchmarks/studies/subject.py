"""What a side study measures: a model that may be adapted, and batches of its training data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from weightlora.train.loading import load_model
from weightlora.train.plan import Job
from weightlora.train.targets import setting_for


@dataclass(frozen=True)
class Subject:
    """A model and its training data.

    Attributes:
        model: The base model with its head, without adapters.
        target: PEFT's `target_modules` and `task_type`.
        train: Tokenized rows.
        collate: Makes a batch of rows.
    """

    model: nn.Module
    target: dict[str, Any]
    train: Sequence[Any]
    collate: Callable[[list[Any]], Any]


def load_subject(job: Job) -> Subject:
    """Load the weights of a prepared run of LoRA."""
    model, fresh = load_model(job.work, job.config, job.recipe)
    target = setting_for(job.recipe, job.work, model, job.methods["lora"], fresh).target
    return Subject(model, target, [job.work.train[index] for index in range(len(job.work.train))], job.work.collate)
