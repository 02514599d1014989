"""WeightLoRA+ after a probe: what stays has its larger rank from the first step on."""

import pytest
import torch
from models import adamw, batch, lora_bert

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters


@pytest.mark.parametrize("expand", ["random", "qr", "restart"])
def test_what_the_probe_keeps_grows_before_the_first_step(expand):
    model, inputs = lora_bert(), batch()
    whole = sum(adapter.size for adapter in find_adapters(model))
    before = {adapter.name: (adapter.rank, adapter.scaling) for adapter in find_adapters(model)}
    selector = WeightLora(model, adamw(model), WeightLoraConfig(keep=3, expand=expand))
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
    selector.probe([inputs])
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, expected)
    assert len(selector.kept) == 3
    for adapter in selector.adapters:
        rank, scaling = before[adapter.name]
        assert adapter.rank > 2 * rank and adapter.scaling == pytest.approx(scaling)
    grown = sum(adapter.size for adapter in selector.adapters)
    assert 0.8 * whole < grown <= whole

    model.train()(**inputs).loss.backward()
    for adapter in selector.adapters:
        assert (adapter.factors[1].grad.abs().sum(0) > 0).all()  # each column of B, the new ones too
    selector.optimizer.step()
    held = {id(p) for group in selector.optimizer.param_groups for p in group["params"]}
    assert all(id(p) in held and p in selector.optimizer.state for a in selector.adapters for p in a.parameters)
