"""Prices of depth between two that were measured, and the steps with which they are measured."""

import pytest
import torch
from models import batch, lora_bert

from weightlora.adapters import find_adapters
from weightlora.costs.anchors import between, ends, optimizer_of_copies, subsets
from weightlora.costs.tracing import Given, Trace, trace
from weightlora.errors import TrainingError


@pytest.mark.parametrize(
    ("profile", "high", "low", "prices"),
    [
        ([0.0, 1.0, 4.0], 0, 2, [10.0, 12.5, 20.0]),
        ([0.0, 1.0, 0.5, 4.0], 0, 3, [10.0, 12.5, 12.5, 20.0]),  # never less for more depth
        ([0.0, -1.0, 9.0, 4.0], 0, 3, [10.0, 10.0, 20.0, 20.0]),
        ([5.0, 5.0, 5.0], 0, 2, [10.0, 15.0, 20.0]),  # too short to be measured
        ([1.0], 0, 0, [10.0]),
    ],
)
def test_prices_follow_the_profile_between_the_ends(profile, high, low, prices):
    assert between(profile, {high: 10.0, low: 20.0} if low else {0: 10.0}) == pytest.approx(prices)


def test_prices_are_those_that_were_measured_at_groups_between_the_ends_too():
    profile = [0.0, 1.0, 1.0, 2.0, 3.0, 6.0]
    measured = {0: 10.0, 2: 50.0, 3: 52.0, 5: 60.0}
    assert between(profile, measured) == pytest.approx([10.0, 50.0, 50.0, 52.0, 54.0, 60.0])


def test_what_backward_reaches_anyway_costs_the_same_down_to_there():
    assert between([0.0, 1.0, 2.0, 4.0], {0: 10.0, 3: 12.0}, reached=2) == pytest.approx([10.0, 10.0, 10.0, 12.0])
    assert between([0.0, 1.0, 2.0], {0: 10.0, 2: 10.0}, reached=2) == [10.0, 10.0, 10.0]


def test_a_deeper_end_that_was_measured_as_cheaper_costs_the_same():
    assert between([0.0, 1.0], {0: 10.0, 1: 9.0}) == [10.0, 10.0]


def test_the_ends_are_the_lowest_and_the_highest_that_ran():
    given = Given(torch.Size([1]), torch.float32, None)
    seen = Trace([2, 0, 1, 3], [given, given, given, None], [], [], [])
    assert ends(seen) == (0, 1)


def test_where_no_adapter_ran_there_is_nothing_to_measure():
    with pytest.raises(TrainingError, match=r"^no module with an adapter runs in the batch that is measured: adapt"):
        ends(Trace([0, 1], [None, None], [], [], []))


def test_alone_means_that_all_others_are_off():
    model = lora_bert()
    adapters = find_adapters(model)
    low, high = ends(trace(model, adapters, lambda: model(**batch()).loss))
    off = subsets(adapters, (low, high))
    names = {adapter.name.removeprefix("bert.encoder.layer.") for adapter in adapters}
    left = {kind: names - {a.name.removeprefix("bert.encoder.layer.") for a in off[kind]} for kind in off}
    assert off[None] == []
    assert left[low] <= {f"0.attention.self.{k}" for k in ("query", "key", "value")}
    assert left[high] == {"1.output.dense"}
    assert len(off[low]) == len(off[high]) == 11


def test_the_update_that_is_measured_moves_no_weight():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = optimizer_of_copies([weight])
    optimizer.step()
    assert weight.grad is None and weight.tolist() == [1.0, 1.0, 1.0]
    assert len(optimizer.state) == 1
