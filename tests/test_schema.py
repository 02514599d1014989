"""What a saved state may hold: each rule on its own, on the state of a real run."""

import pytest
from runs import run_loop

from weightlora.errors import StateError
from weightlora.schema import NUMBER, check_entries, check_kind, check_values


@pytest.fixture(scope="module")
def values():
    return run_loop(3)[1].state_dict()


def test_the_states_of_a_run_pass(values):
    check_values(values)
    for steps in (0, 1, 6):
        check_values(run_loop(steps)[1].state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": None}, "the state's 'names' is None, and must be a list"),
        ({"step_count": True}, "the state's 'step_count' is True, and must be a int"),
        ({"round": -1}, "the state's round is -1"),
        ({"step_count": 10**18}, "the state's step_count is 1000000000000000000, and the selection has 4 steps"),
        ({"names": ["a"] * 12}, "names 12 adapters, 1 of them different"),
        (
            {"sizes": [10**20] * 12},
            "entry 0 of the state's 'sizes' is 100000000000000000000, and must be a whole number",
        ),
        ({"kinds": ["layer"] * 12}, "entry 0 of the state's 'kinds' is 'layer', and must be 'module' or 'parameter'"),
        ({"waiting": ["x"]}, "has 'x' among those that wait to leave, and it has not lost"),
        ({"config": {}}, "config has select_steps=None"),
    ],
)
def test_what_no_run_can_have_is_named(values, changes, message):
    with pytest.raises(StateError, match=message):
        check_values(values | changes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, "1", None, True])
def test_a_number_is_finite_and_fits_float32(value):
    check_entries("scores", [0, -1.5, 1e30], NUMBER)
    with pytest.raises(StateError, match=r"entry 1 of the state's 'scores' is .*, and must be a finite number"):
        check_entries("scores", [0.0, value], NUMBER)


def test_a_kind_is_exact():
    check_kind({"round": 1}, "round", int)
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(StateError, match=r"the state's 'round' is .*, and must be a int"):
            check_kind({"round": wrong}, "round", int)
