"""A model is brought to the structure of a checkpoint, or refused untouched."""

import pytest
import torch
from models import adamw, lora_bert, train
from runs import run_loop
from selections import start

from weightlora import restore
from weightlora.adapters import find_adapters
from weightlora.errors import StateError
from weightlora.state import write_state


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 6])
def test_a_restored_model_has_the_structure_of_the_checkpoint(tmp_path, steps):
    trained, selector = run_loop(steps)
    write_state(selector.state_dict(), tmp_path)
    model = lora_bert()
    optimizer = adamw(model)
    restore(model, tmp_path, optimizer)
    shapes = {name: value.shape for name, value in trained.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    scalings = {adapter.name: adapter.scaling for adapter in find_adapters(trained)}
    assert {adapter.name: adapter.scaling for adapter in find_adapters(model)} == scalings
    assert model.peft_config["default"].to_dict() == trained.peft_config["default"].to_dict()
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    restore(model, tmp_path, optimizer)  # a second time changes nothing
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes


GATES = {"keep": 3, "select_steps": 4, "selection": "stoiht", "omega_lr": 2.0, "warmup_steps": 1}


def spoilt(state, **entries):
    """The state with other first entries that are not None."""
    columns = {name: list(state[name]) for name in entries}
    place = next(place for place, rank in enumerate(state["ranks"]) if rank is not None)
    for name, value in entries.items():
        columns[name][place] = value
    return state | columns


@pytest.fixture(scope="module")
def state():
    """Of a run in the second of its two rounds."""
    return run_loop(3)[1].state_dict()


@pytest.mark.parametrize("built", ["fresh", "restored"])
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"ranks": 10**7}, "with rank 10000000, and its layer takes multiples of 1 up to [0-9]+:"),
        ({"scalings": 1.5}, "has scaling .*, and the state says 1.5: build the model as in the first run"),
        ({"scalings": -8.0}, "and the state says -8.0"),
        ({"start_ranks": 2}, "parameters, and had rank 2"),
        ({"start_ranks": 2, "sizes": 64}, "parameters, and had rank 2 and 64 when the run began"),
        ({"sizes": 100}, "and 100 when the run began"),
        ({"kinds": "parameter"}, "build the model as in the first run"),
        ({"names": "bert.x"}, "is not in both"),
    ],
)
def test_bounds_that_the_model_gives_are_checked_before_it_is_touched(tmp_path, state, entries, message, built):
    write_state(state, tmp_path)
    model = lora_bert()
    if built == "restored":
        restore(model, tmp_path)
    optimizer = adamw(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    write_state(spoilt(state, **entries), tmp_path)
    if built == "restored" and "ranks" in entries:
        message = "build the model as in the first run"
    if built == "restored" and entries == {"start_ranks": 2, "sizes": 64}:
        pytest.skip("a grown adapter could have begun so, and a restored model does not show how it began")
    with pytest.raises(StateError, match=message):
        restore(model, tmp_path, optimizer)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [id(parameter) for group in optimizer.param_groups for parameter in group["params"]] == held


@pytest.mark.parametrize("steps", [0, 2, 6])
def test_gates_that_were_folded_into_the_scalings_fit(tmp_path, steps):
    model, optimizer, selector = start(**GATES)
    train(model, optimizer, selector, steps=steps)
    state = selector.state_dict()
    write_state(state, tmp_path)
    fresh = lora_bert()
    restore(fresh, tmp_path)
    restore(fresh, tmp_path)
    assert [a.scaling for a in find_adapters(fresh)] == [a.scaling for a in find_adapters(model)]
    write_state(spoilt(state, scalings=1.5), tmp_path)
    with pytest.raises(StateError, match=r"the state says 1\.5"):
        restore(lora_bert(), tmp_path)
