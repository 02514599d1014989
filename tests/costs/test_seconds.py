"""Predicted times are those of PEFT models that have only the chosen adapters, on a clock that counts operations."""

import pytest
import torch
from models import adamw, batch, tiny_bert
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from weightlora.adapters import find_adapters
from weightlora.costs import Costs, best_within, measure, seconds

NAMES = [name for name, m in tiny_bert(4).named_modules() if isinstance(m, torch.nn.Linear) and "encoder" in name]


class Counting(TorchDispatchMode):
    """Each operation takes a second, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.now += 1.0
        return function(*args, **(kwargs or {}))


@pytest.fixture
def clock(monkeypatch):
    with Counting() as counting:
        monkeypatch.setattr(seconds.time, "perf_counter", lambda: counting.now)
        monkeypatch.setattr(seconds, "STEPS", 1)  # all take equally long
        yield counting


def plain(names: list[str]):
    return get_peft_model(tiny_bert(4), LoraConfig(r=4, target_modules=names, task_type="SEQ_CLS")).train()


def measured() -> Costs:
    model = plain(NAMES)
    return measure("step_time", model, find_adapters(model), lambda: model(**batch()).loss)


def step_of(names: list[str], clock: Counting) -> float:
    model = plain(names)
    optimizer = adamw(model)
    for _ in range(2):  # the first one makes the optimizer's state
        began = clock.now
        model(**batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return clock.now - began


def test_predictions_within_a_tenth_and_choices_within_the_budget(clock):
    costs = measured()
    assert costs.depth == sorted(costs.depth) and min(costs.own) > 0
    assert costs.predict([True] * 24) == pytest.approx(costs.whole, rel=0.01)
    assert costs.whole == pytest.approx(step_of(NAMES, clock), rel=0.05)
    score = torch.rand(24, generator=torch.Generator().manual_seed(1))
    for share in (0.45, 0.6, 0.8):
        mask = best_within(costs, score, share * costs.whole, None)
        assert mask is not None
        names = [name for name, kept in zip(NAMES, mask, strict=True) if kept]
        assert 0.85 * share * costs.whole < costs.predict(mask) <= share * costs.whole
        assert step_of(names, clock) == pytest.approx(costs.predict(mask), rel=0.1)


def test_depth_is_what_a_step_costs_whose_backward_pass_ends_there(clock):
    costs = measured()
    for layer in range(4):
        name = f"bert.encoder.layer.{layer}.output.dense"
        alone = [one == name for one in NAMES]
        assert costs.predict(alone) == pytest.approx(step_of([name], clock), rel=0.1)


def test_adapters_above_do_not_count_as_depth(clock):
    """Seven of them in the last layer, one in each of the others: most of the backward pass is not depth."""
    names = [name for name in NAMES if "layer.3." in name or name.endswith("intermediate.dense")]
    model = plain(names)
    costs = measure("step_time", model, find_adapters(model), lambda: model(**batch()).loss)
    low = [name for name in names if "layer.1." in name]
    assert costs.predict([name in low for name in names]) == pytest.approx(step_of(low, clock), rel=0.02)


def test_prices_of_adapters_add_up_to_what_they_add_to_a_step(clock, monkeypatch):
    monkeypatch.setattr(seconds, "_added", lambda *_: 1.0)  # a layer alone may be faster than inside the model
    costs = measured()
    assert costs.predict([True] * 24) == pytest.approx(costs.whole, rel=0.01)


def test_one_adapter_of_each_kind_is_timed_alone(monkeypatch):
    timed = []
    monkeypatch.setattr(seconds, "STEPS", 1)
    monkeypatch.setattr(seconds, "_added", lambda adapter, *_: timed.append(adapter) or 1.0)
    measured()
    assert len(timed) == 3  # square, widening and narrowing layers


def test_steps_under_autocast_are_priced_and_leave_no_gradient_for_the_next_one(monkeypatch):
    monkeypatch.setattr(seconds, "STEPS", 1)
    model, left = plain(NAMES), []

    def loss() -> torch.Tensor:
        left.append(any(parameter.grad is not None for parameter in model.parameters()))
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batch()).loss

    costs = measure("step_time", model, find_adapters(model), loss)
    assert min(costs.own) > 0 and costs.whole > 0
    assert len(left) == 9 and not any(left[4:])  # before them are the trace, and the layers alone
