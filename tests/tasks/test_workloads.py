"""The benchmark's workloads: what is reported is the loss that was trained on, and the metric of its name."""

import numpy as np
import pytest
import torch
from models import smollm2
from transformers import EvalPrediction

from weightlora.tasks import causal
from weightlora.tasks.catalogue import WORKLOADS, load_workload

SIZES = {"train_examples": 6, "validation_examples": 2, "test_examples": 2}


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(ValueError, match="task 'sst' is unknown: choose one of rotten-tomatoes, imdb, vader-tweets"):
        load_workload({"task": "sst"})


def test_the_regression_reports_error_and_correlations():
    workload = load_workload({"task": "vader-tweets", "max_length": 32, **SIZES})
    found = workload.metrics(EvalPrediction(np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 2.0])))
    assert found["held_out_loss"] == pytest.approx((0 + 1 + 4) / 3)
    assert found["spearman"] == pytest.approx(0.5)
    assert found["pearson"] == pytest.approx(0.327327, rel=1e-5)
    batch = workload.collate(workload.train)
    assert batch["labels"].dtype == torch.float32 and workload.model(**batch).logits.shape == (6, 1)


@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name in WORKLOADS if name.startswith("smollm2")])
def test_smollm2_reports_the_loss_that_it_trains_on(task, monkeypatch):
    loaded = smollm2()
    monkeypatch.setattr(causal, "load_smollm2", lambda: loaded)
    workload = load_workload({"task": task, "max_length": 32, **SIZES})
    assert [len(rows) for rows in (workload.train, workload.validation, workload.test)] == [6, 2, 2]
    batch = workload.collate(workload.train)
    with torch.no_grad():
        output = workload.model.eval()(**batch)
    labels = batch["labels"]
    found = workload.metrics(EvalPrediction(workload.preprocess(output.logits, labels).numpy(), labels.numpy()))
    assert found["held_out_loss"] == pytest.approx(float(output.loss), rel=1e-4)
    assert found["held_out_loss"] < 6, "a pretrained model that reads its text: chance is 10.8"
    assert workload.metric in found and set(workload.reported) <= set(found)
