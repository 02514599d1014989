"""Every architecture: selection, a real disconnect, growth, and a checkpoint that plain PEFT loads to the same."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES
from models import adamw
from peft import LoraConfig, PeftModel, get_peft_model

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

SETTINGS = {
    "credit": {"select_steps": 3},
    "gates, growing": {"select_steps": 3, "selection": "stoiht", "expand": "qr"},
}


CASES = [
    pytest.param(name, rule, marks=[pytest.mark.slow] if architecture.slow else [])
    for name, architecture in ARCHITECTURES.items()
    for rule in SETTINGS
    if not (architecture.slow and rule != "credit")  # the load takes long
]


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_an_architecture_selects_disconnects_and_loads_without_us(name, rule, tmp_path):
    architecture = ARCHITECTURES[name]
    pytest.importorskip(architecture.needs)
    torch.manual_seed(0)
    base = architecture.build()
    again = copy.deepcopy(base)
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=8, **architecture.lora)).train()
    optimizer = adamw(model)
    n = len(find_adapters(model))
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=architecture.keep, **SETTINGS[rule]))
    moved = {}
    for step in range(5):
        torch.manual_seed(10 + step)
        model(**architecture.batch()).loss.backward()
        if step == 3:  # the first step of the survivors alone
            assert len(find_adapters(model)) == architecture.keep < n
            moved = {adapter.name: adapter.factors[1].detach().clone() for adapter in selector.adapters}
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    assert all(not torch.equal(a.factors[1], moved[a.name]) for a in selector.adapters), "they train on"

    model.eval().save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(again, tmp_path).eval()
    assert {adapter.name for adapter in find_adapters(loaded, check=False)} == set(selector.kept)
    torch.manual_seed(99)
    batch = architecture.batch()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
