"""Measuring leaves the model as it was, and refuses what it cannot measure."""

import copy

import pytest
import torch
from models import batch, lora_bert, lora_mixtral, tiny_bert
from peft import LoraConfig, get_peft_model

from weightlora.adapters import find_adapters
from weightlora.costs import measure
from weightlora.errors import ModelError


@pytest.mark.parametrize("resource", ["memory", "step_time"])
def test_the_model_is_as_it_was_also_after_an_error(resource):
    model = lora_bert().train()
    before = copy.deepcopy(model.state_dict())
    trained = [p.requires_grad for p in model.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]

    def check() -> None:
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert [p.requires_grad for p in model.parameters()] == trained
        assert all(p.grad is None for p in model.parameters())
        assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
        assert not any(adapter.layer.disable_adapters for adapter in find_adapters(model))

    costs = measure(resource, model, find_adapters(model), lambda: model(**batch()).loss)
    assert costs.resource == resource and len(costs.own) == 12
    check()
    calls = iter(range(3))

    def failing() -> torch.Tensor:
        if next(calls, None) is None:
            raise RuntimeError("no room")
        return model(**batch()).loss

    with pytest.raises(RuntimeError, match="no room"):
        measure(resource, model, find_adapters(model), failing)
    check()


def test_adapters_on_parameters_are_refused():
    model = lora_mixtral()
    with pytest.raises(
        ModelError, match=r"is on a parameter \(target_parameters\), whose time and memory cannot be mea"
    ):
        measure("memory", model, find_adapters(model), lambda: model(**batch()).loss)


@pytest.mark.parametrize("resource", ["memory", "step_time"])
def test_a_device_that_is_neither_a_cpu_nor_cuda_is_refused(resource):
    """An MPS or an XPU, for which `meta` stands: times would be those of launches, and no memory would be seen."""
    model = lora_bert().to("meta")
    with pytest.raises(ModelError, match="the model is on a device of type 'meta', where steps cannot be measured"):
        measure(resource, model, find_adapters(model), lambda: model(**batch()).loss)


@pytest.mark.parametrize("resource", ["memory", "step_time"])
def test_an_adapter_whose_output_is_not_used_is_no_end(resource):
    """Such as on a pooler, where the loss is of the mean over tokens."""
    model = get_peft_model(tiny_bert(4).bert, LoraConfig(r=2, target_modules="all-linear")).train()
    inputs = {name: value for name, value in batch(size=16).items() if name != "labels"}
    adapters = find_adapters(model)
    assert adapters[-1].name.endswith("pooler.dense")

    def loss() -> torch.Tensor:
        return model(**inputs).last_hidden_state.mean(1).square().mean()

    costs = measure(resource, model, adapters, loss)
    assert 0 < costs.predict([index == 3 for index in range(len(adapters))]) <= costs.whole
