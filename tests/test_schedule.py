"""Which step does what: no off-by-one at a boundary, and the last round always ends on target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightlora.schedule import phase_at, round_budgets, round_ends, thresholds


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


@pytest.mark.parametrize(
    ("warmup", "every", "steps"),
    [(0, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9]), (0, 3, [3, 6, 9]), (2, 3, [5, 8]), (4, 1, [5, 6, 7, 8, 9]), (9, 1, [])],
)
def test_gates_are_projected_at_these_steps(warmup, every, steps):
    assert [step for step in range(1, 10) if thresholds(step, warmup, every)] == steps
