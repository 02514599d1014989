"""Every kind of LoRA: it selects, disconnects, trains on and loads without us; or it is refused by name."""

import pytest
import torch
from kinds import KINDS
from models import adamw
from peft import PeftModel

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import base_model_of, find_adapters
from weightlora.adapters.variants import VARIANTS

RULES = {
    "credit": {"expand": "random"},
    "stoiht": {"selection": "stoiht", "omega_lr": 1.0, "expand": "qr"},
    "random": {"selection": "random"},
}
SERVED = [
    (name, rule)
    for name, kind in KINDS.items()
    for rule in (("credit", "random") if kind.no_gates else ("credit", "stoiht"))
    if not kind.refused
]


def parameters_of_layers(model) -> int:
    return sum(p.numel() for n, p in model.named_parameters() if "lora_" in n and ".other." not in n)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "rule"), SERVED)
def test_a_kind_of_lora_selects_trains_on_and_loads_without_us(name, rule, tmp_path):
    kind = KINDS[name]
    pytest.importorskip(kind.needs)
    model = kind.build().train()
    optimizer = kind.optimizer(model)
    groups = len(optimizer.param_groups)
    others = {n: p.detach().clone() for n, p in model.named_parameters() if ".other." in n}
    settings = {key: value for key, value in RULES[rule].items() if not (kind.no_growth and key == "expand")}
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=2, select_steps=3, **settings))
    starts = selector.ranks
    assert len(starts) > 2 and sum(selector.sizes.values()) == parameters_of_layers(model)
    layers = {adapter.name: adapter.layer.base_layer for adapter in selector.adapters}
    before: dict[str, list[torch.Tensor]] = {}
    for step in range(5):
        model(**kind.batch(step)).loss.backward()
        if step == 3:
            before = {adapter.name: [p.detach().clone() for p in adapter.parameters] for adapter in selector.adapters}
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    assert selector.phase == "train" and len(selector.kept) == 2 == len(find_adapters(model, "default"))
    stay = {*selector.kept, *(a.name for a in (find_adapters(model, "other", check=False) if others else []))}
    for name, layer in layers.items():
        assert (base_model_of(model).get_submodule(name) is layer) == (name not in stay)
    for adapter in selector.adapters:
        moved = [not torch.equal(p, old) for p, old in zip(adapter.parameters, before[adapter.name], strict=True)]
        assert any(moved), "the survivors train on"
    assert any(rank > starts[name] for name, rank in selector.ranks.items()) == ("expand" in settings)
    assert len(optimizer.param_groups) == groups
    alive = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in alive for group in optimizer.param_groups for parameter in group["params"])
    assert {n: p for n, p in model.named_parameters() if ".other." in n}.keys() == others.keys()

    mode = kind.needs == "bitsandbytes"  # which wants other sizes for inference; there is no dropout
    model.train(mode).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(kind.base(), tmp_path).train(mode)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**kind.batch(9)).logits, model(**kind.batch(9)).logits)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.refused])
def test_a_kind_of_lora_is_probed_before_its_first_step(name):
    kind = KINDS[name]
    pytest.importorskip(kind.needs)
    model = kind.build().train()
    optimizer = kind.optimizer(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=2, selection="gradient"))
    if kind.no_probe:
        with pytest.raises(ValueError, match=kind.no_probe):
            selector.probe([kind.batch(0)])
        return
    selector.probe([kind.batch(0)])
    assert len(selector.kept) == 2 == len(find_adapters(model, "default"))
    before = [p.detach().clone() for adapter in selector.adapters for p in adapter.parameters]
    model(**kind.batch(1)).loss.backward()
    optimizer.step()
    after = [p for adapter in selector.adapters for p in adapter.parameters]
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


REFUSED = [
    (name, settings, message)
    for name, kind in KINDS.items()
    for settings, message in (
        ({}, kind.refused),
        ({"selection": "stoiht"}, kind.no_gates),
        ({"expand": "qr"}, kind.no_growth),
    )
    if message
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "settings", "message"), REFUSED)
def test_what_cannot_be_served_is_refused_by_name_before_anything_changes(name, settings, message):
    kind = KINDS[name]
    pytest.importorskip(kind.needs)
    model = kind.build()
    optimizer = adamw(model)
    with pytest.raises(ValueError) as error:
        WeightLora(model, optimizer, WeightLoraConfig(**{"select_steps": 4} | settings))
    assert message in str(error.value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not optimizer._optimizer_step_pre_hooks


def test_which_kinds_grow_and_which_have_gates():
    """DoRA's magnitude has the size of the outputs and not of the rank, in convolutions, too."""
    dora = {f"Dora{layer}" for layer in ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")}
    assert {name for name, allows in VARIANTS.items() if allows.growth} == {"", "ALoraLinear", "VeloraLinear", *dora}
    gated = {"", "ALoraLinear", "BdLoraLinear", "MiCALinear", "MiCAEmbedding"}
    assert {name for name, allows in VARIANTS.items() if allows.gates} == gated
