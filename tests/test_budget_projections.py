"""The projections, against what defines them: exact counts under ties, budgets, and bisection."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightlora.budget import project_simplex, top_by_parameters, top_k, top_k_within


def vector(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# A few values, so that ties are the rule, and any finite ones.
tied = st.lists(st.sampled_from([-2.0, -0.0, 0.0, 1.0]), min_size=1, max_size=12)
finite = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=12)
scores_and_k = (tied | finite).flatmap(lambda scores: st.tuples(st.just(scores), st.integers(0, len(scores))))


@given(scores_and_k)
def test_top_k_keeps_exactly_k_and_among_equals_the_lower_index(drawn):
    scores, k = drawn
    kept = top_k(vector(scores), k).tolist()
    assert sum(kept) == k
    for i, j in itertools.product(range(len(scores)), repeat=2):
        if kept[i] and not kept[j]:
            assert scores[i] > scores[j] or (scores[i] == scores[j] and i < j)


@pytest.mark.parametrize("n", [3, 17, 5000])
def test_of_all_equal_scores_the_first_k_stay(n):
    """Small and large: sorts change their algorithm with the length."""
    for k in (0, 1, n // 2, n):
        assert torch.equal(top_k(torch.ones(n), k), torch.arange(n) < k)


sized = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5]) | st.floats(-9, 9), st.integers(1, 20)), min_size=1)


@given(sized, st.integers(0, 100))
def test_top_by_parameters_takes_in_order_each_that_still_fits(drawn, budget):
    """Never over the budget, and whatever was left out was too large for what the better ones had left."""
    scores, sizes = [score for score, _ in drawn], [size for _, size in drawn]
    kept = top_by_parameters(vector(scores), sizes, budget).tolist()
    assert sum(itertools.compress(sizes, kept)) <= budget
    for j, left_out in enumerate(scores):
        if not kept[j]:
            better = [i for i, score in enumerate(scores) if score > left_out or (score == left_out and i < j)]
            assert sum(sizes[i] for i in better if kept[i]) + sizes[j] > budget


adapters_of_k = st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 9)), min_size=1, max_size=9)
of_two_sizes = st.lists(st.tuples(st.integers(-9, 9), st.sampled_from([2, 5])), min_size=1, max_size=8)


def k_within(drawn: list[tuple[int, int]], data) -> tuple[torch.Tensor, list[int], int, int]:
    """Scores, sizes, a number, and a budget that so many fit into."""
    sizes = [size for _, size in drawn]
    k = data.draw(st.integers(0, len(drawn)))
    budget = data.draw(st.integers(sum(sorted(sizes)[:k]), sum(sizes)))
    return vector([float(score) for score, _ in drawn]), sizes, k, budget


@given(adapters_of_k, st.data())
def test_k_that_fit_are_kept_and_no_exchange_of_two_would_be_better(drawn, data):
    scores, sizes, k, budget = k_within(drawn, data)
    mask = top_k_within(scores, k, sizes, budget)
    total = sum(itertools.compress(sizes, mask.tolist()))
    assert int(mask.sum()) == k and total <= budget
    for out, into in itertools.product(mask.nonzero().flatten().tolist(), (~mask).nonzero().flatten().tolist()):
        assert scores[into] <= scores[out] or total - sizes[out] + sizes[into] > budget


@given(of_two_sizes, st.data())
def test_of_two_sizes_the_best_k_that_fit_are_found(drawn, data):
    scores, sizes, k, budget = k_within(drawn, data)
    every = itertools.combinations(range(len(drawn)), k)
    best = max(float(scores[list(some)].sum()) for some in every if sum(sizes[i] for i in some) <= budget)
    assert float(scores[top_k_within(scores, k, sizes, budget)].sum()) == best


def test_the_room_that_exchanges_leave_is_used():
    scores, sizes = vector([2.0, 1.0, 8.0, 2.0, 3.0, 1.0]), [147456] * 4 + [65536, 40960]
    assert top_k_within(scores, 2, sizes, 188416).nonzero().flatten().tolist() == [2, 5]


def test_the_exchange_that_costs_least_for_what_it_saves_is_made():
    # The best two are too large together; 3.0 for 1.0 saves 4 at a cost of 2, 4.0 for 1.0 saves 5 at a cost of 3.
    assert top_k_within(vector([4.0, 3.0, 1.0]), 2, [6, 5, 1], 8).tolist() == [True, False, True]
    assert top_k_within(vector([4.0, 3.0, 1.0]), 2, [6, 5, 1], 11).tolist() == [True, True, False], "they fit"
    assert top_k_within(vector([5.0, 4.0, 3.0, 1.0]), 3, [1, 1, 2, 1], 3).tolist() == [True, True, False, True]
    # 4.0 for 1.0 costs 3 and saves 6, 3.0 for 1.0 costs 2 and saves 2. What is saved too much then buys 4.0 for 3.0.
    assert top_k_within(vector([4.0, 3.0, 1.0]), 2, [7, 3, 1], 7).tolist() == [False, True, True]
    assert top_k_within(vector([4.0, 3.0, 1.0]), 2, [7, 3, 1], 8).tolist() == [True, False, True]
    # 9.0 for 4.0 costs 5 and saves 4. That 6.0 for 4.0 costs 2 does not help, because it saves 1.
    assert top_k_within(vector([9.0, 6.0, 0.0, 0.0, 4.0]), 2, [7, 4, 1, 1, 3], 8).tolist() == [
        False,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
def test_of_equal_adapters_the_first_ones_stay_within_a_budget(scores):
    assert top_k_within(vector(scores), 2, [10, 10, 5, 5], 15).nonzero().flatten().tolist() == [0, 2]


values = st.lists(st.floats(-100, 100) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=12)


def by_bisection(point: list[float]) -> list[float]:
    """`max(point - tau, 0)` with the tau at which it adds up to 1, found by halving an interval."""
    low, high = min(point) - 1, max(point)
    for _ in range(200):
        tau = (low + high) / 2
        if math.fsum(max(value - tau, 0) for value in point) > 1:
            low = tau
        else:
            high = tau
    return [max(value - high, 0) for value in point]


@given(values)
def test_the_simplex_projection_agrees_with_bisection(point):
    torch.testing.assert_close(project_simplex(vector(point)), vector(by_bisection(point)), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ([5.0], [1.0]),
        ([2.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ([1.0, 1.0], [0.5, 0.5]),
        ([1.0, 1.0, 1.0, 1.0], [0.25, 0.25, 0.25, 0.25]),
        ([1.0, 0.5, -3.0], [0.75, 0.25, 0.0]),
        ([-7.0, -7.5], [0.75, 0.25]),
        ([0.25, 0.75], [0.25, 0.75]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_reaches_zero_is_exactly_zero(point, expected, dtype):
    assert torch.equal(project_simplex(torch.tensor(point, dtype=dtype)), torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize(("large", "dtype"), [(1e17, torch.float64), (3e7, torch.float32)])
def test_large_values_still_land_on_the_simplex(large, dtype):
    assert torch.equal(project_simplex(torch.tensor([large, 0.0], dtype=dtype)), torch.tensor([1.0, 0.0], dtype=dtype))


def test_the_arguments_are_not_changed():
    point, sizes = vector([0.5, 2.0, 1.0]), [1, 2, 3]
    top_k(point, 1), top_by_parameters(point, sizes, 3), project_simplex(point)
    assert (point.tolist(), sizes) == ([0.5, 2.0, 1.0], [1, 2, 3])
