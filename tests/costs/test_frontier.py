"""What budgets buy: larger ones never less, and each set within its own."""

import pytest

from weightlora.costs import Costs, frontier, in_words

COSTS = Costs("memory", [0, 1, 1, 2], [10.0, 20.0, 40.0], [1.0, 2.0, 0.0], [4.0, 3.0, 3.0, 8.0], 62.0)
SCORES = [1.0, 3.0, 2.0, 5.0]


@pytest.mark.parametrize("number", [None, 2])
def test_a_larger_budget_buys_more(number):
    points = frontier(COSTS, SCORES, number)
    assert [p["score"] for p in points] == sorted({p["score"] for p in points})
    assert all(p["cost"] <= p["budget"] for p in points)
    assert {p["kept"] for p in points} == ({1, 2, 3, 4} if number is None else {2})
    assert points[-1]["score"] == (11.0 if number is None else 8.0)
    assert number is not None or points[0]["cost"] == 10 + 1 + 4


def test_the_cost_of_a_choice_in_words():
    memory = in_words("memory", 3 * 2**30, 4 * 2**30, 9 * 2**30)
    assert memory == "A step uses 3.00 GiB by prediction; the budget is 4.00 GiB."
    time = in_words("step_time", 0.59, 0.6, 1.0)
    assert time == "A step takes 0.59 of the step time of LoRA on all modules by prediction; the budget is 0.60."
