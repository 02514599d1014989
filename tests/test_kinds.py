"""Every kind of LoRA: it selects, disconnects, trains on and loads without us; or it is refused by name."""

import pytest
import torch
from kinds import KINDS
from models import batch, tiny_bert
from peft import PeftModel

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

RULES = {"credit": {"expand": "random"}, "stoiht": {"selection": "stoiht", "omega_lr": 1.0}}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.refused])
def test_a_kind_of_lora_selects_trains_on_and_loads_without_us(name, rule, tmp_path):
    kind = KINDS[name]
    model = kind.build().train()
    optimizer = kind.optimizer(model)
    groups = len(optimizer.param_groups)
    others = {n: p.detach().clone() for n, p in model.named_parameters() if ".other." in n}
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=2, select_steps=3, **RULES[rule]))
    assert len(selector.names) > 2
    before: dict[str, torch.Tensor] = {}
    for step in range(5):
        model(**batch(step)).loss.backward()
        if step == 3:
            before = {adapter.name: adapter.factors[1].detach().clone() for adapter in selector.adapters}
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    assert selector.phase == "train" and len(selector.kept) == 2 == len(find_adapters(model, "default"))
    assert all(not torch.equal(a.factors[1], before[a.name]) for a in selector.adapters), "the survivors train on"
    assert len(optimizer.param_groups) == groups
    alive = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in alive for group in optimizer.param_groups for parameter in group["params"])
    assert {n: p for n, p in model.named_parameters() if ".other." in n}.keys() == others.keys()

    model.eval().save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_bert(), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch(9)).logits, model(**batch(9)).logits)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.refused])
def test_a_kind_that_cannot_be_served_is_refused_by_name(name):
    model = KINDS[name].build()
    with pytest.raises(ValueError) as error:
        WeightLora(model, KINDS[name].optimizer(model))
    assert KINDS[name].refused in str(error.value)
