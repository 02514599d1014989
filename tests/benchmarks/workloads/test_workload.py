"""A workload that is made from its parts: each of them has the effect that it is said to have."""

from dataclasses import replace

import pytest
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.workload import Workload

from weightlora.train.families.classification import classification
from weightlora.train.tasks import TaskInfo

TASK = TaskInfo("text-classification", metrics=("f1_macro", "accuracy"), class_names=("dull", "fine"))


@pytest.fixture
def workload(world):
    """It keeps what `work` was called with in `given`."""
    given = []

    def work(source, experiment):
        given.append((source, experiment))
        return classification(source)

    def splits():
        return {name: [{"text": f"{name} {i}", "label": i % 2} for i in range(8)] for name in ("train", "validation")}

    made = Workload(lambda: world / "deberta", splits, TASK, work, ".*(query|key)_proj")
    return made, given


def test_a_workload_has_its_own_model_rows_task_and_modules(monkeypatch, workload, job, world):
    made, given = workload
    monkeypatch.setitem(WORKLOADS, "own", lambda: made)
    prepared = job("own", evaluate_on="validation", batch_size=3)
    assert prepared.recipe.model.model == str(world / "deberta") and prepared.plan.adapters == 4
    assert prepared.plan.rows == {"train": 6, "validation": 2}
    assert prepared.work.metric == "f1_macro" and prepared.config.id2label == {0: "dull", 1: "fine"}
    [(source, experiment)] = given
    assert source.splits["validation"]["text"] == ["validation 0", "validation 1"]
    assert source.task is TASK and experiment["batch_size"] == 3


def test_settings_are_arguments_and_rows_may_stay_whole(monkeypatch, workload, job):
    made, _ = workload
    assert made.settings == {} and made.cut_rows is True
    monkeypatch.setitem(
        WORKLOADS, "own", lambda: replace(made, settings={"attn_implementation": "eager"}, cut_rows=False)
    )
    prepared = job("own", evaluate_on="validation")
    assert prepared.recipe.model.attn_implementation == "eager" and prepared.plan.rows == {"train": 8, "validation": 8}
