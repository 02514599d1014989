"""The study of memory: which sets it measures, and that its bytes are counts, not guesses."""

import pytest
import torch
from benchmarks.studies.memory import Case, adapter_names, measure_case, plan_cases, render_memory_markdown
from benchmarks.studies.subject import Subject
from models import BERT_TARGETS, batch, tiny_bert, tiny_llama

CPU = torch.device("cpu")
NAMES = [f"m.{i}" for i in range(8)]


def subject(model=None, **target) -> Subject:
    target = {"target_modules": BERT_TARGETS, "task_type": "SEQ_CLS"} | target
    return Subject(model or tiny_bert(2), target, [], lambda rows: {})


def test_every_set_is_measured_once():
    cases = plan_cases(NAMES, [8, 0, 2], [4, 1], ["top", "bottom"])
    assert cases == [
        *(Case((), rank, ("top", "bottom")) for rank in (1, 4)),
        *(Case(("m.6", "m.7"), rank, ("top",)) for rank in (1, 4)),
        *(Case(tuple(NAMES), rank, ("top", "bottom")) for rank in (1, 4)),
        *(Case(("m.0", "m.1"), rank, ("bottom",)) for rank in (1, 4)),
    ]
    assert [len(case.names) for case in plan_cases(NAMES * 5, None, [8], ["top"])] == [0, 1, 5, 10, 20, 40]
    with pytest.raises(ValueError, match="a count of 9 is more than the model's 8 LoRA adapters"):
        plan_cases(NAMES, [9], [1], ["top"])


def test_bytes_are_exact():
    task = subject()
    names = adapter_names(task)
    assert len(names) == 12 and all(parameter.requires_grad for parameter in task.model.parameters())
    measured = measure_case(task, Case(tuple(names[-2:]), 4, ("top",)), batch(), CPU)
    adapters = 4 * (16 + 24) * 2  # the two layers of the last block's MLP
    trainable = adapters + 16 * 2 + 2
    assert measured["adapters"] == 2 and measured["adapter_parameters"] == adapters
    assert measured["trainable_parameters"] == trainable
    assert measured["gradient_bytes"] == 4 * trainable
    assert measured["optimizer_state_bytes"] == 4 * (2 * trainable + 4 + 2)
    assert measured["model_bytes"] == sum(
        tensor.nbytes for tensor in (*tiny_bert(2).parameters(), *tiny_bert(2).buffers())
    ) + 4 * (trainable)  # PEFT keeps the head that it copied
    resident = measured["model_bytes"] + measured["optimizer_state_bytes"]
    assert measured["peak_bytes"] > resident + measured["saved_activation_bytes"]
    assert measured == measure_case(task, Case(tuple(names[-2:]), 4, ("top",)), batch(), CPU)
    assert all(parameter.requires_grad for parameter in task.model.parameters())  # a copy was adapted


def test_adapters_at_the_bottom_and_more_of_them_cost_more():
    task = subject()
    names = adapter_names(task)
    cases = plan_cases(names, [0, 3, 12], [2], ["top", "bottom"])
    peaks = {(len(case.names), case.orders): measure_case(task, case, batch(), CPU)["peak_bytes"] for case in cases}
    both = ("top", "bottom")
    assert peaks[0, both] < peaks[3, ("top",)] < peaks[3, ("bottom",)] < peaks[12, both]


def test_a_model_without_anything_to_train_is_measured_too():
    task = subject(tiny_llama(), target_modules=["q_proj"], task_type="CAUSAL_LM")
    inputs = {"input_ids": batch()["input_ids"], "labels": batch()["input_ids"]}
    measured = measure_case(task, Case((), 2, ("top",)), inputs, CPU)
    assert measured["trainable_parameters"] == measured["gradient_bytes"] == measured["optimizer_state_bytes"] == 0
    assert measured["saved_activation_bytes"] == 0 and measured["peak_bytes"] > measured["model_bytes"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_bytes_on_cuda():
    task = subject()
    measured = measure_case(task, Case(tuple(adapter_names(task)), 4, ("top",)), batch(), torch.device("cuda"))
    resident = measured["model_bytes"] + measured["optimizer_state_bytes"]
    assert measured["peak_bytes"] > resident + measured["saved_activation_bytes"]


def case(adapters, rank, orders, peak):
    sizes = {"adapter_parameters": adapters * rank * 10, "gradient_bytes": 1e5, "optimizer_state_bytes": 2e5}
    return {"adapters": adapters, "rank": rank, "orders": orders, "peak_bytes": peak, **sizes} | {
        "saved_activation_bytes": 5e6,
        "model_bytes": 1e6,
    }


def study():
    both = ["top", "bottom"]
    cases = [
        *(case(0, rank, both, 2e6) for rank in (1, 2, 4)),
        *(case(1, rank, ["top"], 3e6 + rank) for rank in (1, 2, 4)),
        *(case(4, rank, both, 9e6 + 1e5 * rank) for rank in (1, 2, 4)),
        *(case(1, rank, ["bottom"], 8e6 + rank) for rank in (1, 2, 4)),
    ]
    settings = {"batch_size": 8, "max_length": 10, "ranks": [1, 2, 4], "orders": both}
    return {"model": "tiny", "device": "cpu", "settings": settings, "cases": cases}


def test_the_page_has_a_table_an_order_and_says_what_costs_how_much():
    page = render_memory_markdown(study())
    assert "| top | rank 1 | rank 2 | rank 4 |" in page and "| bottom | rank 1 | rank 2 | rank 4 |" in page
    assert "| 4 | 9.1 | 9.2 | 9.4 |" in page
    assert "| 1 (bottom) | 2 | 20 | 0.1 | 0.2 | 5.0 | 8.0 |" in page
    assert page.count("\n| 4 | ") == 2 + 3 and "\n| 1 (top) | 4 |" not in page
    assert page.splitlines()[-3:] == [
        "- from 1 to 4 adapters (top) at rank 2: +6.2 MB for 60 more parameters, 103,333 bytes each",
        "- from 1 to 4 adapters (bottom) at rank 2: +1.2 MB for 60 more parameters, 20,000 bytes each",
        "- from rank 1 to rank 4 with 4 adapters: +0.3 MB for 120 more parameters, 2,500 bytes each",
    ]
    one = study() | {"cases": [case(4, 2, ["top"], 9e6)]}
    one["settings"] |= {"ranks": [2], "orders": ["top"]}
    assert "more" not in render_memory_markdown(one)
