import math

from weightlora.compare.tuning import choose_rates, remarks_on_rates

GRIDS = {"a": (1e-3, 2e-3, 4e-3), "b": (1e-3, 2e-3, 4e-3), "c": (5e-4,)}


def test_the_lowest_loss_chooses_and_the_lower_rate_of_two():
    losses = {"a": {1e-3: 0.5, 2e-3: 0.4, 4e-3: 0.4}, "b": {1e-3: math.nan, 4e-3: 0.9}}
    assert choose_rates(GRIDS, losses) == {"a": 2e-3, "b": 4e-3, "c": 5e-4}
    assert choose_rates(GRIDS, {"a": {1e-3: math.nan}}) == {"c": 5e-4}


def test_a_rate_at_the_end_of_the_grid_is_told():
    (remark,) = remarks_on_rates(GRIDS, {"a": 2e-3, "b": 4e-3, "c": 5e-4})
    assert remark == "The best learning rate of b is the highest that was tried: higher ones may be better."
    assert "lowest that was tried: lower" in remarks_on_rates(GRIDS, {"a": 1e-3, "b": 2e-3})[0]


def test_one_rate_for_all_methods_is_told():
    (remark,) = remarks_on_rates({"a": (1e-3,), "b": (1e-3,)}, {})
    assert "All methods ran at the learning rate 0.001" in remark
    assert remarks_on_rates({"a": (1e-3,), "b": (2e-3,)}, {}) == []
