"""The best set within a budget is the one that trying all sets finds."""

import itertools
import random

import pytest
import torch

from weightlora.costs import Costs, best_within
from weightlora.costs.packing import LEAST_UNITS, cheapest
from weightlora.errors import ConfigError


def draw(seed: int) -> tuple[Costs, torch.Tensor, float, int | None]:
    """Costs in whole numbers of up to 8 adapters in up to 5 groups, scores, a budget and a number to keep."""
    dice = random.Random(seed)
    n = dice.randint(1, 8)
    count = dice.randint(1, min(n, 5))
    groups = [index * count // n for index in range(n)]
    dice.shuffle(groups)
    depth = list(itertools.accumulate(dice.randint(0, 30) for _ in range(count)))
    shared, own = [dice.randint(0, 8) for _ in range(count)], [dice.randint(1, 12) for _ in range(n)]
    costs = Costs("memory", groups, [*map(float, depth)], [*map(float, shared)], [*map(float, own)], 100.0)
    score = torch.tensor([dice.uniform(-0.5, 1) for _ in range(n)])
    return costs, score, dice.randint(0, 120) + 0.5, dice.choice([None, dice.randint(1, n)])


@pytest.mark.parametrize("seed", range(60))
def test_no_other_set_within_the_budget_has_a_larger_score(seed: int):
    costs, score, budget, number = draw(seed)
    mask = best_within(costs, score, budget, number)
    sets = [s for s in itertools.product([False, True], repeat=len(score)) if any(s) and number in (None, sum(s))]
    allowed = [float(score[torch.tensor(s)].sum()) for s in sets if costs.predict(s) <= budget]
    if not allowed:
        assert mask is None
        return
    assert mask is not None and costs.predict(mask) <= budget and number in (None, int(mask.sum()))
    assert float(score[mask].sum()) == pytest.approx(max(allowed))


@pytest.mark.parametrize("number", [None, 2])
@pytest.mark.parametrize("whole", [1.0, 512.0])
def test_whole_numbers_may_fill_a_budget_to_the_last_unit(whole: float, number: int | None):
    costs = Costs("memory", [0, 0, 1], [10 * whole, 40 * whole], [0.0, 0.0], [3 * whole, 4 * whole, whole], 48 * whole)
    mask = best_within(costs, torch.tensor([1.0, 2.0, 9.0]), 17 * whole, number)
    assert mask is not None and mask.tolist() == [True, True, False]


def test_with_many_adapters_the_budget_is_used_almost_whole():
    costs = Costs(
        "step_time",
        [i // 2 for i in range(210)],
        [0.4 + 0.005 * g for g in range(105)],
        [0.0] * 105,
        [0.0012] * 210,
        1.0,
    )
    score = torch.rand(210, generator=torch.Generator().manual_seed(0))
    mask = best_within(costs, score, 0.6, 52)
    assert mask is not None and int(mask.sum()) == 52 and 0.594 < costs.predict(mask) <= 0.6
    alone = best_within(costs, score, 0.6, None)
    assert alone is not None and 0.594 < costs.predict(alone) <= 0.6
    assert float(score[alone].sum()) >= float(score[mask].sum()) - 0.1


def test_a_budget_that_the_cheapest_set_just_fits_has_room():
    groups = [i // 2 for i in range(210)]
    own = [0.001 + 0.00001 * (i % 7) for i in range(210)]
    costs = Costs("step_time", groups, [0.4 + 0.004 * g for g in range(105)], [0.0] * 105, own, 1.0)
    least = costs.predict(cheapest(costs, 52))
    mask = best_within(costs, torch.zeros(210), least, 52)
    assert mask is not None and int(mask.sum()) == 52 and costs.predict(mask) <= least
    assert best_within(costs, torch.zeros(210), least * 0.999, 52) is None


def test_all_adapters_fit_into_what_all_of_them_cost():
    costs = Costs("memory", [i // 2 for i in range(12)], [0.1 * g for g in range(6)], [0.01] * 6, [1 / 3] * 12, 5.0)
    mask = best_within(costs, torch.ones(12), costs.predict([True] * 12), None)
    assert mask is not None and bool(mask.all())
    score = torch.ones(12)
    score[3] = 0.0  # adds nothing
    mask = best_within(costs, score, costs.predict([True] * 12), None)
    assert mask is not None and mask.tolist() == [i != 3 for i in range(12)]


def test_a_problem_that_is_too_large_is_refused():
    costs = Costs("step_time", [0] * 2000, [0.0], [0.0], [1e-4] * 2000, 1.0)
    assert 501 * LEAST_UNITS * 501 * 2000 > 1e9
    with pytest.raises(ConfigError, match=r"^keep=500 of 2000 adapters within a budget of step_time is too large"):
        best_within(costs, torch.ones(2000), 0.5, 500)
    mask = best_within(costs, torch.ones(2000), 0.1, None)
    assert mask is not None and int(mask.sum()) == 1000


def test_where_every_score_is_negative_the_best_one_that_fits_stays():
    costs = Costs("memory", [0, 0, 1], [10.0, 20.0], [1.0, 0.0], [1.0, 2.0, 1.0], 30.0)
    score = torch.tensor([-3.0, -2.0, -1.0])
    for budget, best in ((13.0, 1), (12.0, 0), (21.0, 2)):  # to the last unit
        mask = best_within(costs, score, budget, None)
        assert mask is not None and mask.nonzero().flatten().tolist() == [best]
    assert best_within(costs, score, 11.9, None) is None


def test_the_fullest_block_is_paid_for():
    generator = random.Random(0)
    gaps = []
    for _ in range(60):
        n = generator.randint(3, 10)
        blocks = sorted(generator.randint(0, 2) for _ in range(n))
        blocks = [sorted({*blocks}).index(block) for block in blocks]
        own, passing = ([float(generator.randint(1, 9)) for _ in range(n)] for _ in range(2))
        costs = Costs("memory", [*range(n)], [*map(float, range(10, 10 + n))], [0.0] * n, own, 99.0, passing, blocks)
        score = torch.tensor([generator.random() for _ in range(n)])
        sets = [mask for mask in itertools.product([False, True], repeat=n) if any(mask)]
        budget = generator.uniform(min(map(costs.predict, sets)), costs.predict([True] * n))
        mask = best_within(costs, score, budget, None)
        assert costs.predict(mask) <= budget
        best = max(float(score[list(one)].sum()) for one in sets if costs.predict(one) <= budget)
        gaps.append(float(score[mask].sum()) / best)
    assert min(gaps) > 0.7 and sum(gaps) / len(gaps) > 0.98


def test_what_fits_does_not_depend_on_the_scores():
    """The adapters with the best scores may be too many for one block. The limit was checked with scores of 0."""
    generator = random.Random(1)
    missed = 0
    for _ in range(300):
        n = generator.randint(4, 10)
        blocks = [index % 3 for index in range(n)]
        own, passing = [0.1] * n, [float(generator.choice([1, 2, 3])) for _ in range(n)]
        costs = Costs("memory", [*range(n)], [1.0] * n, [0.0] * n, own, 99.0, passing, blocks)
        number = generator.randint(2, n)
        sets = [set_ for set_ in itertools.product([False, True], repeat=n) if sum(set_) == number]
        budget = min(map(costs.predict, sets)) * generator.uniform(1, 1.1)
        score = torch.tensor([generator.random() + 5 * price for price in passing])
        empty = best_within(costs, torch.zeros(n), budget, number) is None
        mask = best_within(costs, score, budget, number)
        assert (mask is None) == empty
        assert mask is None or (costs.predict(mask) <= budget and int(mask.sum()) == number)
        missed += empty
    assert missed <= 15


def test_a_set_that_was_found_without_scores_stands_in_where_none_is_found_with_them():
    """Here even the set that `cheapest` finds does not fit."""
    own, passing = [2.0, 2.0, 0.0, 5.0, 5.0, 2.0, 2.0, 2.0], [5.0, 8.0, 1.0, 1.0, 5.0, 8.0, 8.0, 1.0]
    depth, blocks = [1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 5.0, 5.0], [0, 1, 2, 0, 1, 2, 0, 1]
    costs = Costs("memory", [*range(8)], depth, [0.0] * 8, own, 99.0, passing, blocks)
    assert costs.predict(cheapest(costs, 5)) > 24
    mask = best_within(costs, torch.tensor([1.3, 5.6, 3.7, 5.2, 7.3, 6.2, 1.4, 9.5]), 24.0, 5)
    assert mask is not None and int(mask.sum()) == 5 and costs.predict(mask) <= 24
