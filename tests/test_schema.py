"""What a saved state may hold: each rule on its own, on the state of a real run."""

import math
from dataclasses import asdict

import pytest
from models import train
from runs import run_loop
from selections import start

from weightlora import WeightLoraConfig
from weightlora.errors import StateError
from weightlora.schema import (
    NAME,
    NUMBER,
    PRICE,
    SIZE,
    _check_costs,
    _config_of,
    check_kind,
    check_values,
    or_none,
)


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
        ({"names": None}, "the state's 'names' is None, and must be of type list: resume from"),
        ({"step_count": True}, "the state's 'step_count' is True, and must be of type int"),
        (
            {"sizes": [10**20] * 12},
            "entry 0 of the state's 'sizes' is 100000000000000000000, and must be a whole number",
        ),
        ({"scores": [0.0, math.nan] * 6}, "entry 1 of the state's 'scores' is nan, and must be a finite number"),
        ({"kinds": ["layer"] * 12}, "entry 0 of the state's 'kinds' is 'layer', and must be 'module' or 'parameter'"),
        ({"waiting": ["y", "x"]}, "has 'x' among those that wait"),
        ({"waiting": [[]]}, r"entry 0 of the state's 'waiting' is \[\], and must be a name"),
        ({"costs": {}}, r"the state's 'costs' is \{\}, and must be the costs of a step"),
        ({"config": {}}, "config has select_steps=None"),
    ],
)
def test_what_no_run_can_have_is_named(values, changes, message):
    with pytest.raises(StateError, match=message):
        check_values(values | changes)


def test_a_kind_is_exact():
    check_kind({"round": 1}, "round", int)
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(StateError, match=r"the state's 'round' is .*, and must be of type int"):
            check_kind({"round": wrong}, "round", int)


COSTS = {
    "resource": "memory",
    "groups": [0, 0, 1],
    "depth": [1.0, 2.0],
    "shared": [0.0, 0.5],
    "own": [1, 2, 3],
    "whole": 9.0,
    "passing": [],
    "blocks": [],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resource": "step_time"}, "the costs of 'step_time', and its config bounds memory"),
        ({"groups": [0, 0, 2]}, "entry 2 of the state's 'groups' is 2"),
        ({"groups": [-1, 0, 1]}, "entry 0 of the state's 'groups' is -1"),
        ({"groups": [0, 0, 0]}, "do not fit its 3 adapters"),
        ({"groups": [0, 1]}, "do not fit its 3 adapters"),
        ({"depth": [2.0, 1.0]}, "do not fit its 3 adapters"),
        ({"depth": []}, "entry 2 of the state's 'groups' is 1"),
        ({"shared": [0.0]}, "do not fit its 3 adapters"),
        ({"own": [1, 2, -3]}, "entry 2 of the state's 'own' is -3, and must be a number that is not negative"),
        ({"own": [1, 2, float("nan")]}, "entry 2 of the state's 'own' is nan"),
        ({"passing": [1.0, 2.0]}, "do not fit its 3 adapters"),
        ({"passing": [1.0, 2.0, 3.0]}, "do not fit its 3 adapters"),
        ({"passing": [1, 2, -3]}, "entry 2 of the state's 'passing' is -3"),
        ({"passing": [1, 2, 3], "blocks": [0, 0, 3]}, "entry 2 of the state's 'blocks' is 3, and .* from 0 to 2:"),
        ({"passing": [1, 2, 3], "blocks": [-1, 0, 2]}, "entry 0 of the state's 'blocks' is -1"),
        ({"whole": "9"}, "entry 0 of the state's 'whole' is '9'"),
        ({"new": 1}, "'costs' is .*, and must be the costs of a step, or null"),
        ({"depth": None}, "'depth' is None, and must be of type list: resume from"),
    ],
)
def test_costs_of_a_step_are_checked(change, message):
    config = WeightLoraConfig(keep_memory="1GiB")
    _check_costs(COSTS, 3, config)
    with pytest.raises(StateError, match=message):
        _check_costs({**COSTS, **change}, 3, config)
    _check_costs({**COSTS, "passing": [1.0, 2.0, 3.0], "blocks": [0, 2, 1]}, 3, config)
    with pytest.raises(StateError, match="its config bounds None"):
        _check_costs(COSTS, 3, WeightLoraConfig())
    with pytest.raises(StateError, match="must be the costs of a step"):
        _check_costs([1], 3, config)


def test_each_bound_belongs_to_what_fits():
    large = 2.0**127
    beyond = math.nextafter(large, math.inf)
    for rule, fits, wrong in (
        (SIZE, [1, 2**48], [0, -1, 2**48 + 1, 1.0, True, None]),
        (NUMBER, [0, -1.5, -large, large], [beyond, -beyond, math.nan, math.inf, "1", True, None]),
        (PRICE, [0, 0.5, large], [-1e-9, -1, beyond, False, None]),
        (NAME, ["x"], ["", None, 1, ["x"]]),
        (or_none(SIZE), [None, 1, 2**48], [0, 2**48 + 1, ""]),
    ):
        assert [rule[0](value) for value in fits] == [True] * len(fits), rule[1]
        assert [bool(rule[0](value)) for value in wrong] == [False] * len(wrong), rule[1]


@pytest.mark.parametrize(("name", "most"), [("select_steps", 2**40), ("rounds", 100_000)])
def test_steps_and_rounds_have_a_largest_number(name, most):
    settings = asdict(WeightLoraConfig(keep=3, select_steps=2**40))
    assert getattr(_config_of(settings | {name: most}), name) == most
    with pytest.raises(StateError, match=f"{name}={most + 1}, and it must be a whole number from"):
        _config_of(settings | {name: most + 1})


def test_rounds_are_counted_from_the_end_of_the_warm_up():
    settings = {"selection": "stoiht", "omega_lr": 1.0, "warmup_steps": 2, "rounds": 2, "keep": 3, "select_steps": 6}
    model, optimizer, selector = start(**settings)
    for step, over in enumerate((0, 0, 0, 1, 1, 2)):
        train(model, optimizer, selector, start=step)
        state = selector.state_dict()
        check_values(state)
        assert state["round"] == over
        if step < 2:
            with pytest.raises(StateError, match=r"with gate 0\.5, and no gate has moved yet"):
                check_values(state | {"omega": [0.5] * 12})
        with pytest.raises(StateError, match=f"the state's round is {over - 1}, and {over} of 2 are over"):
            check_values(state | {"round": over - 1})


def test_those_that_wait_to_leave_have_lost(values):
    gone = next(name for name, rank in zip(values["names"], values["ranks"], strict=True) if rank is None)
    stays = next(name for name, rank in zip(values["names"], values["ranks"], strict=True) if rank is not None)
    check_values(values | {"waiting": [gone]})
    with pytest.raises(StateError, match=f"has '{stays}' among those that wait to leave, and it has not lost"):
        check_values(values | {"waiting": [gone, stays]})


def of(steps: int = 0, **settings) -> dict:
    """The state of a run of its own, after so many steps."""
    model, optimizer, selector = start(**settings)
    train(model, optimizer, selector, steps=steps)
    return selector.state_dict()


def test_a_run_without_steps_of_selection_has_a_state_before_its_probe_and_after_its_choice():
    for settings, over in (({"selection": "gradient"}, 0), ({"selection": "random", "select_steps": 0}, 1)):
        state = of(keep=3, **settings)
        check_values(state)
        assert (state["round"], state["config"]["select_steps"]) == (over, 0)


def test_no_round_is_over_before_the_first_step():
    check_values(of(keep=3, select_steps=2, rounds=2))


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
def test_a_choice_that_is_made_within_the_warm_up_moves_gates():
    settings = {"selection": "stoiht", "constraint": "simplex", "warmup_steps": 3, "keep": 3, "select_steps": 6}
    model, optimizer, selector = start(**settings)
    train(model, optimizer, selector, steps=2)
    selector.finish()
    state = selector.state_dict()
    assert state["round"] == 1 and state["step_count"] == 2 and set(state["omega"]) - {0, 1}
    check_values(state)


def test_gates_may_leave_fewer_than_the_budget_but_not_none_and_not_more():
    state = of(2, selection="stoiht", omega_lr=1.0, keep=3, select_steps=2)
    nobody = {"ranks": [None] * 12, "scalings": [None] * 12, "omega": [0.0] * 12}
    with pytest.raises(StateError, match="has 0 adapters with 0 parameters after 1 rounds, and the budget is 3"):
        check_values(state | nobody)
    everybody = {"ranks": state["start_ranks"], "scalings": [1.0] * 12, "omega": [1.0] * 12}
    with pytest.raises(StateError, match=r"has 12 adapters with .* after 1 rounds, and the budget is 3"):
        check_values(state | everybody)


def test_before_the_first_decision_nobody_is_gone():
    state = of(1, selection="stoiht", omega_lr=1.0, keep=3, select_steps=4)
    gone = {"ranks": [*state["ranks"][:-1], None], "scalings": [*state["scalings"][:-1], None]}
    with pytest.raises(StateError, match=r"rank None, scaling None and gate 0\.0 after 0 rounds"):
        check_values(state | gone | {"omega": [*state["omega"][:-1], 0.0]})


def test_settings_that_a_state_lacks_have_their_defaults_and_none_is_out_of_bounds():
    assert _config_of({"select_steps": 0, "selection": "random"}).select_steps == 0
    assert _config_of({"select_steps": 4}).rounds == 1
    for name, value in (("select_steps", -1), ("rounds", 0)):
        with pytest.raises(StateError, match=f"config has {name}={value}, and it must be a whole number"):
            _config_of({"select_steps": 4, name: value})
