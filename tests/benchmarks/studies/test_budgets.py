"""The study of budgets: what is asked is not exceeded by prediction, and memory is as predicted."""

import json
from pathlib import Path

import pytest
from benchmarks.speed.models import Subject
from benchmarks.studies.budgets import SHARES, measure_budgets, render_budgets_markdown
from models import BERT_TARGETS, batch, tiny_bert

TARGET = {"target_modules": BERT_TARGETS, "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}


@pytest.fixture(scope="module")
def figures():
    return measure_budgets(Subject(tiny_bert(4), [batch(size=64)], 3, TARGET), rounds=1)


def test_budgets_are_kept_and_memory_is_as_predicted(figures):
    memory = figures["memory"]
    assert memory["whole_measured"] == pytest.approx(memory["whole_predicted"], rel=0.1)
    for share, row in zip(SHARES, memory["budgets"], strict=True):
        assert row["asked"] == share * memory["whole_predicted"] and 0 < row["kept"] < 24
        assert row["predicted"] <= row["asked"] and row["measured"] == pytest.approx(row["predicted"], rel=0.05)
        assert 0.9 * row["measured"] < row["one_pass"] < row["measured"]
    for share, row in zip(SHARES, figures["step_time"]["budgets"], strict=True):
        assert row["asked"] == pytest.approx(share) and row["measured"] > 0 and row["predicted"] <= row["asked"]


def test_the_figures_as_a_table(figures):
    machine = {"machine": {"device": "cpu", "threads": 1}}
    no_room = {"budgets": [{"asked": 0.1, "kept": 0, "predicted": None, "measured": None}]}
    none = {"step_time": no_room, "memory": {"budgets": []}, **machine}
    text = render_budgets_markdown({"models": {"tiny": figures | machine, "none": none}})
    assert (
        text.startswith("Rank 8, float32; tiny on cpu, threads: 1; none on cpu, threads: 1.")
        and text.count("| tiny, memory |") == 3
    )
    assert "| none, step time | 0.100 | 0 | no room | no room |  |  |" in text


def test_the_docs_say_how_many_steps_measuring_takes():
    """In steps with all adapters, of the models that were measured: 17 to 22 for time, 3 to 5 for memory."""
    root = Path(__file__).parents[3]
    models = json.loads((root / "benchmarks" / "results" / "budgets.json").read_text(encoding="utf-8"))["models"]
    most = {
        resource: max(
            one[resource]["measuring_seconds"] / one["step_time"]["whole_predicted"] for one in models.values()
        )
        for resource in ("step_time", "memory")
    }
    assert 17.5 < most["step_time"] < 22.5 and 4.5 < most["memory"] < 5.5
    page = (root / "docs" / "budgets.md").read_text(encoding="utf-8")
    assert "about as long as 20 steps for time, and 5 for memory" in page
