"""Which step does what: no off-by-one at a boundary, and the last round always ends on target."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightlora.budget import (
    Budget,
    phase_at,
    plan_budgets,
    projects_after,
    round_budgets,
    round_ends,
    rounds_due,
    top_k_within,
)


@pytest.mark.parametrize(
    ("warmup", "select", "phases"),
    [
        (0, 0, ["train"] * 4),
        (0, 3, ["select", "select", "select", "train"]),
        (2, 3, ["warmup", "warmup", "select", "train"]),
        (1, 2, ["warmup", "select", "train", "train"]),
    ],
)
def test_phases_change_after_their_last_step(warmup, select, phases):
    assert [phase_at(step, warmup, select) for step in (1, 2, 3, 4)] == phases
    assert phase_at(0, warmup, select) == "select", "a probe"


@pytest.mark.parametrize(
    ("warmup", "select", "rounds", "ends"),
    [
        (0, 200, 1, [200]),
        (0, 10, 3, [4, 7, 10]),
        (2, 12, 2, [7, 12]),
        (3, 6, 3, [4, 5, 6]),
        (9, 10, 1, [10]),
        (0, 0, 1, [0]),
    ],
)
def test_rounds_end_at_these_steps(warmup, select, rounds, ends):
    assert round_ends(warmup, select, rounds) == ends
    due = [rounds_due(step, warmup, select, rounds) for step in range(select + 1)]
    assert due == [sum(step >= end for end in ends) for step in range(select + 1)] and due[-1] == rounds


@given(st.integers(0, 1000), st.integers(1, 50), st.integers(0, 10_000))
def test_rounds_share_the_steps_after_the_warmup(warmup, rounds, extra):
    ends = round_ends(warmup, warmup + rounds + extra, rounds)
    lengths = [end - start for start, end in zip([warmup, *ends], ends, strict=False)]
    assert len(ends) == rounds
    assert ends[-1] == warmup + rounds + extra
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("start", "target", "rounds", "budgets"),
    [
        (36, 5, 1, [5]),
        (36, 9, 2, [18, 9]),
        (32, 4, 3, [16, 8, 4]),
        (36, 5, 2, [13, 5]),
        (3, 2, 3, [3, 2, 2]),
        (5, 5, 2, [5, 5]),
        (1664, 104, 4, [832, 416, 208, 104]),
    ],
)
def test_rounds_leave_these_budgets(start, target, rounds, budgets):
    assert round_budgets(start, target, rounds) == budgets


@given(st.integers(1, 10_000), st.integers(1, 12), st.data())
def test_budgets_shrink_by_one_ratio_to_the_target(start, rounds, data):
    target = data.draw(st.integers(1, start))
    budgets = round_budgets(start, target, rounds)
    assert len(budgets) == rounds
    assert budgets[-1] == target
    assert [start, *budgets] == sorted([start, *budgets], reverse=True)
    for i, budget in enumerate(budgets, 1):
        assert budget == pytest.approx(start ** (1 - i / rounds) * target ** (i / rounds), abs=0.5 + 1e-6)


SIZES = [10, 10, 10, 10, 30, 30]  # 100 in all


@pytest.mark.parametrize(
    ("number", "parameters", "rounds", "share", "budgets"),
    [
        (3, None, 1, True, [(3, 50)]),
        (3, None, 1, False, [(3, 100)]),
        (1, None, 2, True, [(2, 33), (1, 16)]),
        (3, 70, 1, True, [(3, 70)]),
        (3, 70, 1, False, [(3, 70)]),
        (3, 900, 1, True, [(3, 100)]),
        (5, 70, 1, True, [(5, 70)]),
        (None, 10, 1, True, [(None, 10)]),
        (None, 40, 1, True, [(None, 40)]),
        (None, 25, 2, True, [(None, 50), (None, 25)]),
    ],
)
def test_each_round_has_a_number_and_a_bound_on_the_parameters(number, parameters, rounds, share, budgets):
    assert plan_budgets(SIZES, number, parameters, rounds, share) == budgets


def test_a_round_keeps_the_best_that_fit_into_its_budget():
    scores, sizes = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), [30, 10, 30, 10, 10, 10]
    budget = Budget(tuple(plan_budgets(sizes, 2, None, 2, True)))
    assert budget.rounds == ((3, 50), (2, 33))
    assert budget.best(scores, sizes, 0).tolist() == [True, True, False, True, False, False]
    assert budget.best(scores, sizes, 1).tolist() == [False, True, False, True, False, False]


def test_what_cannot_fit_in_the_end_leaves_in_the_first_round():
    budget = Budget(((None, 60), (None, 45), (None, 30)))
    assert budget.best(torch.tensor([9.0, 1.0, 5.0, 4.0]), [40, 10, 30, 20], 0).tolist() == [False, True, True, True]
    assert budget.best(torch.tensor([1.0, 5.0, 4.0]), [10, 30, 20], 1).tolist() == [True, True, False]
    assert budget.best(torch.tensor([1.0, 5.0]), [10, 30], 2).tolist() == [False, True]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(-9, 9)), min_size=1, max_size=20), st.integers(1, 4), st.data()
)
def test_the_smallest_always_fit_into_the_share_round_after_round(left, rounds, data):
    """Whatever was kept in the round before, as long as it fitted."""
    number = data.draw(st.integers(1, len(left)))
    for keep, bound in plan_budgets([size for size, _ in left], number, None, rounds, True):
        sizes = [size for size, _ in left]
        assert sum(sorted(sizes)[:keep]) <= bound
        mask = top_k_within(torch.tensor([score for _, score in left]), keep, sizes, bound).tolist()
        left = list(itertools.compress(left, mask))


@pytest.mark.parametrize(
    ("number", "parameters", "message"),
    [
        (
            None,
            9,
            r"keep_parameters allows 9 parameters, less than the 10 of the smallest adapter: raise it, or lower",
        ),
        (None, 1, r"keep_parameters allows 1 parameter, less than the 10 of the smallest adapter"),
        (
            5,
            60,
            r"keep_parameters allows 60 parameters, less than the 70 of the 5 smallest adapters: raise it, keep fewer",
        ),
    ],
)
def test_a_bound_that_nothing_fits_into_is_refused(number, parameters, message):
    with pytest.raises(ValueError, match=message):
        plan_budgets(SIZES, number, parameters, 1, True)


@pytest.mark.parametrize(
    ("warmup", "every", "steps"),
    [(0, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9]), (0, 3, [3, 6, 9]), (2, 3, [5, 8]), (4, 1, [5, 6, 7, 8, 9]), (9, 1, [])],
)
def test_gates_are_projected_at_these_steps(warmup, every, steps):
    assert [step for step in range(1, 10) if projects_after(step, warmup, every)] == steps
