"""A model is brought to the structure of a checkpoint, or refused untouched."""

import pytest
from models import adamw, lora_bert
from runs import run_loop, save_loop

from weightlora import restore
from weightlora.adapters import find_adapters
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


def test_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the state is of 12 adapters, and this model has 18"):
        restore(lora_bert(layers=3), save_loop(3, tmp_path))
