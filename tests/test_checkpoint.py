"""A model is brought to the structure of a checkpoint, or refused untouched."""

import pytest
from models import adamw, lora_bert, train

from weightlora import WeightLora, WeightLoraConfig, restore
from weightlora.adapters import find_adapters
from weightlora.state import write_state

SETTINGS = {"keep": 3, "select_steps": 4, "rounds": 2, "expand": "qr"}


def run(steps):
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(**SETTINGS))
    train(model, optimizer, selector, steps=steps)
    return model, selector


@pytest.fixture
def directory(tmp_path):
    write_state(run(3)[1].state_dict(), tmp_path)
    return tmp_path


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 6])
def test_a_restored_model_has_the_structure_of_the_checkpoint(tmp_path, steps):
    trained, selector = run(steps)
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


def test_another_model_is_refused(directory):
    with pytest.raises(ValueError, match="the state is of 12 adapters, and this model has 18"):
        restore(lora_bert(layers=3), directory)
