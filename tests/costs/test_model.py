"""The cost of a set of adapters, from its parts."""

from dataclasses import replace

import pytest
import torch

from weightlora.costs import Costs
from weightlora.values import to_bytes

COSTS = Costs("memory", [0, 0, 1], [10.0, 20.0], [3.0, 5.0], [1.0, 2.0, 4.0], 40.0)


@pytest.mark.parametrize(
    ("mask", "cost"),
    [
        ([True, False, False], 10 + 3 + 1),
        ([True, True, False], 10 + 3 + 1 + 2),
        ([False, False, True], 20 + 5 + 4),
        ([True, True, True], 20 + 3 + 5 + 1 + 2 + 4),
    ],
)
def test_depth_is_paid_once_the_input_once_a_group_and_the_rest_by_each(mask, cost):
    assert COSTS.predict(mask) == COSTS.predict(torch.tensor(mask)) == cost


def test_costs_in_words():
    assert (
        COSTS.shown(6 * 2**30) == "6.00 GiB"
        and COSTS.shown(100 * 2**20) == "100 MiB"
        and COSTS.shown(5e6) == "4883 KiB"
    )
    assert (
        Costs("step_time", [0], [1.0], [0.0], [1.0], 4.0).shown(3.0) == "0.75 of the step time of LoRA on all modules"
    )


@pytest.mark.parametrize("cost", [5e6 + 1, 100.4 * 2**20, 6.004 * 2**30])
def test_an_amount_that_is_shown_is_enough_as_a_budget(cost):
    assert cost <= to_bytes("keep_memory", COSTS.shown(cost)) < 1.02 * cost
    share = Costs("step_time", [0], [1.0], [0.0], [1.0], 4.0).shown(4 * 0.604).split()[0]
    assert share == "0.61"


def test_of_the_blocks_that_recompute_one_at_a_time_is_there():
    costs = replace(COSTS, passing=[1.0, 2.0, 7.0], blocks=[0, 0, 1])
    for mask, more in (([1, 1, 0], 3.0), ([0, 0, 1], 7.0), ([1, 1, 1], 7.0)):
        assert costs.predict(mask) == COSTS.predict(mask) + more
    assert costs.by_block([0, 1, 2]) == [7.0, 3.0] and COSTS.by_block([0, 1, 2]) == []
