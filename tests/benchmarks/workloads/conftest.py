from collections.abc import Callable, Mapping
from typing import Any

import pytest
from benchmarks.workloads import job_for

from weightlora.train.methods import METHODS

BASE: Mapping[str, Any] = {
    "method": "lora",
    "steps": 4,
    "select_steps": 2,
    "batch_size": 2,
    "max_length": 32,
    "rank": 2,
    "alpha": 8,
    "dropout": 0.0,
    "keep": 3,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "learning_rate": 1e-3,
    "evaluate_on": "test",
    "options": {},
    "train_examples": 6,
    "validation_examples": 2,
    "test_examples": 2,
}


@pytest.fixture
def job() -> Callable[..., Any]:
    """Prepares a small run of LoRA on a workload."""

    def make(task: str, **changes: Any) -> Any:
        return job_for({**BASE, "task": task, **changes}, 0, METHODS, "unused")

    return make
