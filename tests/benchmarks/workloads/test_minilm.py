"""MiniLM's workloads: what is reported is the loss that was trained on, and the metric of its name."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, EvalPrediction


@pytest.mark.parametrize(
    "task", ["rotten-tomatoes-all", "imdb-all", "vader-tweets-all", "film-reviews", "supersenses"]
)
def test_all_linear_adds_the_pooler_and_leaves_the_head_out(job, task: str):
    made = job(task)
    assert made.plan.adapters == 37 and made.plan.rows == {"train": 6, "test": 2}
    head = 385 * made.config.num_labels  # trained in full
    assert made.plan.trainable[0] == 2 * (24 * 768 + 12 * 1920 + 768) + head


def test_reviews_are_classified_by_a_head(job):
    made = job("rotten-tomatoes", evaluate_on="validation")
    assert made.plan.rows == {"train": 6, "validation": 2} and made.plan.adapters == 36
    batch = made.work.collate([made.work.train[i] for i in range(6)])
    assert batch["input_ids"].shape == (6, 32)  # padded to max_length, as in the stored results
    assert made.work.metric == "accuracy" and made.work.reported == ("accuracy", "f1_macro")


def test_the_regression_reports_error_and_correlations(job):
    made = job("vader-tweets", train_examples=6)
    work = made.work
    found = work.metrics["test"](EvalPrediction(np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 2.0])))
    assert found["held_out_loss"] == pytest.approx((0 + 1 + 4) / 3)
    assert found["spearman"] == pytest.approx(0.5)
    assert found["pearson"] == pytest.approx(0.327327, rel=1e-5)
    batch = work.collate([work.train[i] for i in range(6)])
    model = AutoModelForSequenceClassification.from_pretrained(made.recipe.model.model, num_labels=1)
    assert batch["labels"].dtype == torch.float32 and model(**batch).logits.shape == (6, 1)
