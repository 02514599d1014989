"""The benchmark's workloads: what is reported is the loss that was trained on, and the metric of its name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.workloads import WORKLOADS, job_for
from models import gguf_is_read_once, smollm2
from transformers import AutoModelForSequenceClassification, EvalPrediction

from weightlora.errors import ConfigError
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


def job(task: str, **changes: Any) -> Any:
    return job_for({**BASE, "task": task, **changes}, 0, METHODS, "unused")


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(ConfigError, match="task 'sst' is unknown: choose one of rotten-tomatoes, imdb, vader-tweets"):
        job("sst")


def test_a_task_runs_the_workload_that_it_names():
    made = job("films-long", workload="film-reviews")
    assert made.recipe.data.task == "films-long" and made.config.num_labels == 3
    with pytest.raises(ConfigError, match="workload 'films' is unknown: choose one of rotten-tomatoes, imdb"):
        job("imdb", workload="films")


@pytest.mark.parametrize(
    "task", ["rotten-tomatoes-all", "imdb-all", "vader-tweets-all", "film-reviews", "supersenses"]
)
def test_all_linear_adds_the_pooler_and_leaves_the_head_out(task: str):
    made = job(task)
    assert made.plan.adapters == 37 and made.plan.rows == {"train": 6, "test": 2}
    head = 385 * made.config.num_labels  # trained in full
    assert made.plan.trainable[0] == 2 * (24 * 768 + 12 * 1920 + 768) + head


def test_reviews_are_classified_by_a_head():
    made = job("rotten-tomatoes", evaluate_on="validation")
    assert made.plan.rows == {"train": 6, "validation": 2} and made.plan.adapters == 36
    batch = made.work.collate([made.work.train[i] for i in range(6)])
    assert batch["input_ids"].shape == (6, 32)  # padded to max_length, as in the stored results
    assert made.work.metric == "accuracy" and made.work.reported == ("accuracy", "f1_macro")


def test_the_regression_reports_error_and_correlations():
    work = job("vader-tweets", train_examples=6).work
    found = work.metrics["test"](EvalPrediction(np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 2.0])))
    assert found["held_out_loss"] == pytest.approx((0 + 1 + 4) / 3)
    assert found["spearman"] == pytest.approx(0.5)
    assert found["pearson"] == pytest.approx(0.327327, rel=1e-5)
    batch = work.collate([work.train[i] for i in range(6)])
    model = AutoModelForSequenceClassification.from_pretrained(job("vader-tweets").recipe.model.model, num_labels=1)
    assert batch["labels"].dtype == torch.float32 and model(**batch).logits.shape == (6, 1)


@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name in WORKLOADS if name.startswith("smollm2")])
def test_smollm2_reports_the_loss_that_it_trains_on(task: str):
    with gguf_is_read_once():
        made = job(task)
    work = made.work
    assert made.plan.rows == {"train": 6, "test": 2} and made.plan.adapters == 210
    batch = work.collate([work.train[i] for i in range(6)])
    assert "position_ids" not in batch
    with torch.no_grad():
        output = smollm2()[0].eval()(**batch)
    labels = batch["labels"]
    found = work.metrics["test"](EvalPrediction(work.preprocess(output.logits, labels).numpy(), labels.numpy()))
    assert found["held_out_loss"] == pytest.approx(float(output.loss), rel=1e-4)
    assert found["held_out_loss"] < 6, "a pretrained model that reads its text: chance is 10.8"
    assert work.metric in found and set(work.reported) <= set(found)
