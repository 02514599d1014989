import gc
import weakref

import pytest
import torch
from models import adamw, batch, lora_bert, lora_mixtral, tiny_llama, train
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from survivors import injected, remove
from torch import nn
from transformers import MixtralForCausalLM
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from weightlora.adapters import base_model_of, find_adapters
from weightlora.adapters.surgery import fold_gate_, free_inputs_, switch_off_


def test_a_removed_module_is_the_base_layer_again():
    model = lora_bert()
    adapters = find_adapters(model)
    layers = {adapter.name: adapter.layer.base_layer for adapter in adapters}
    kept = remove(model, [0, 7])
    base = base_model_of(model)
    for name, layer in layers.items():
        assert (base.get_submodule(name) is layer) == (name not in kept)
    assert sum(isinstance(module, LoraLayer) for module in model.modules()) == 2


def test_disconnecting_adapters_that_do_nothing_changes_nothing():
    model = lora_bert().eval()
    optimizer = adamw(model)
    train(model, optimizer, steps=3)
    adapters = find_adapters(model)
    for i, adapter in enumerate(adapters):
        if i not in (2, 5):
            adapter.layer.scaling["default"] = 0.0
    expected = model(**batch()).logits
    remove(model, [2, 5], optimizer)
    assert torch.equal(model(**batch()).logits, expected)


def test_the_optimizer_keeps_its_groups_and_the_survivors_moments():
    model = lora_bert()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": parameters[:9], "lr": 1e-3}, {"params": parameters[9:]}, {"params": []}])
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    train(model, optimizer, steps=3)
    adapters = find_adapters(model)
    groups = list(optimizer.param_groups)
    moments = {id(p): {k: v.clone() for k, v in optimizer.state[p].items()} for p in adapters[3].parameters}
    gone = [p for i, adapter in enumerate(adapters) if i not in (3, 8) for p in adapter.parameters]

    remove(model, [3, 8], optimizer)
    assert all(new is old for new, old in zip(optimizer.param_groups, groups, strict=True))
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    assert not {id(p) for p in gone} & ({id(p) for p in optimizer.state} | held)
    for parameter in adapters[3].parameters:
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(value, moments[id(parameter)][key])
    train(model, optimizer, steps=2, start=3)
    scheduler.step()


def test_what_is_disconnected_leaves_memory():
    model = lora_bert()
    optimizer = adamw(model)
    train(model, optimizer, steps=2)
    adapters = find_adapters(model)
    references = [weakref.ref(p) for adapter in adapters[1:] for p in adapter.parameters]
    references += [weakref.ref(adapter.layer) for adapter in adapters[1:]]
    del adapters
    remove(model, [0], optimizer)
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_backward_stops_at_the_lowest_survivor():
    model = lora_bert()
    remove(model, [9])
    seen = []
    base = base_model_of(model)
    for i, layer in enumerate(base.bert.encoder.layer):
        layer.output.dense.register_full_backward_hook(lambda *args, i=i: seen.append(i))
    model(**batch()).loss.backward()
    assert seen == [1]


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("settings", "freed"),
    [(None, True), ({"use_reentrant": False}, True), ({"use_reentrant": True}, False), ("no checkpointing", False)],
)
def test_inputs_keep_the_gradient_that_they_were_given_only_where_checkpointing_needs_it(settings, freed):
    model = lora_bert(layers=1, target_modules=["intermediate.dense"])
    if settings != "no checkpointing":
        model.gradient_checkpointing_enable(settings)
    model.enable_input_require_grads()  # a second time: Transformers has forgotten its first hook
    free_inputs_(model)
    embedded = base_model_of(model).get_input_embeddings()(torch.tensor([[1]]))
    assert embedded.requires_grad != freed


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_what_others_hooked_into_the_backward_pass_goes_on_without_the_adapter(kind):
    model = lora_bert()
    seen, layer = [], find_adapters(model)[9].layer
    handle = getattr(layer, kind)(lambda *_: seen.append("backward"))
    layer.register_forward_hook(lambda *_: seen.append("forward"))
    remove(model, [0])  # a lower one stays, so that a gradient comes here
    model(**batch()).loss.backward()
    assert seen == ["forward", "backward"]
    handle.remove()
    model(**batch()).loss.backward()
    assert seen == ["forward", "backward", "forward"]


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")
@pytest.mark.parametrize("kind", ["register_backward_hook", "register_full_backward_hook"])
def test_backward_hooks_of_a_base_layer_go_on_without_its_adapter(kind):
    model = lora_bert()
    seen, layer = [], find_adapters(model)[9].layer
    getattr(layer.base_layer, kind)(lambda *_: seen.append("base"))
    layer.register_forward_hook(lambda *_: seen.append("forward"))
    remove(model, [0])
    model(**batch()).loss.backward()
    assert seen == ["forward", "base"]


def test_a_hook_that_takes_arguments_by_name_is_whole_after_its_removal_where_the_base_layer_has_hooks():
    model = lora_bert()
    seen, layer = [], find_adapters(model)[9].layer
    layer.base_layer.register_forward_hook(lambda *_: seen.append("base"))
    handle = layer.register_forward_hook(lambda module, args, kwargs, output: seen.append("layer"), with_kwargs=True)
    remove(model, [0])
    model(**batch())
    assert seen == ["base", "layer"]
    handle.remove()
    model(**batch())


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_what_others_hooked_on_embeddings_goes_on_without_their_adapter():
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["embed_tokens", "up_proj"]))
    base, ids = base_model_of(model), torch.arange(12)[None]
    model.gradient_checkpointing_enable({"use_reentrant": True})
    noise = activate_neftune(model, 5.0)
    remove(model, [1, 2])
    embeddings = base.get_input_embeddings()
    assert type(embeddings) is nn.Embedding

    model.train()(input_ids=ids, labels=ids).loss.backward()
    assert all(adapter.factors[1].grad.any() for adapter in find_adapters(model))
    assert not torch.equal(embeddings(ids), embeddings(ids))
    deactivate_neftune(model, noise)
    assert torch.equal(embeddings(ids), embeddings(ids))
    base.disable_input_require_grads()
    assert not embeddings(ids).requires_grad and not embeddings._forward_hooks


def test_what_others_hooked_on_a_layer_runs_around_its_base_layer_as_it_did_around_the_layer():
    model, seen = lora_bert(), []
    layer = find_adapters(model)[0].layer
    inner = layer.base_layer.register_forward_hook(lambda *args: seen.append("inner"))
    before = layer.register_forward_pre_hook(lambda module, args, kwargs: seen.append("before"), with_kwargs=True)
    after = layer.register_forward_hook(lambda *args: seen.append("after"), always_call=True)
    model(**batch())
    remove(model, [1])
    model(**batch(1))
    assert seen == ["before", "inner", "after"] * 2
    before.remove()
    inner.remove()
    model(**batch(2))
    assert seen[6:] == ["after"]
    assert after.id in layer.base_layer._forward_hooks


def test_other_adapters_on_the_model_stay_untouched():
    model = lora_bert(task_type=None).eval()
    model.add_adapter("other", LoraConfig(target_modules=["query", "intermediate.dense"], r=2))
    for adapter in find_adapters(model, "other", check=False) + find_adapters(model):
        nn.init.normal_(adapter.factors[1], std=0.3)
    model.set_adapter("other")
    expected = model(**batch()).logits
    other = {name: value.clone() for name, value in model.state_dict().items() if ".other." in name}
    model.set_adapter("default")
    mine = model(**batch()).logits
    config = repr(model.peft_config["other"])

    remove(model, list(range(12)))
    assert torch.equal(model(**batch()).logits, mine)
    remove(model, [1, 2], adapter_name="default")
    assert injected(model, "default") == [f"bert.encoder.layer.0.attention.self.{name}" for name in ("key", "value")]
    assert len(injected(model, "other")) == 4
    assert model.active_adapters == ["default"]
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 6 and all(layer.active_adapters == ["default"] for layer in layers)
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".other." in name)
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in other.items())
    assert repr(model.peft_config["other"]) == config
    model.set_adapter("other")
    assert torch.equal(model(**batch()).logits, expected)


def test_modules_to_save_stay():
    model = lora_bert()
    remove(model, [0])
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sum("classifier.modules_to_save.default" in name for name in trainable) == 2
    assert len(trainable) == 4


def test_folding_a_gate_scales_the_update():
    model = lora_bert()
    adapter = find_adapters(model)[0]
    nn.init.normal_(adapter.factors[1])
    b, delta = adapter.factors[1].clone(), adapter.layer.get_delta_weight("default")
    fold_gate_(adapter, 0.25)
    torch.testing.assert_close(adapter.layer.get_delta_weight("default"), 0.25 * delta)
    assert torch.equal(adapter.factors[1], b), "folding into B would change Adam's effective learning rate"
    assert adapter.layer.lora_alpha["default"] == 2


def test_what_is_switched_off_stays_on_the_model_does_nothing_and_trains_no_more():
    model = lora_bert().eval()
    base = model(**batch()).logits
    optimizer = adamw(model)
    train(model, optimizer, steps=2)
    adapters = find_adapters(model)
    switch_off_(adapters[:11], optimizer)
    assert not torch.equal(model(**batch()).logits, base), "the head and one adapter"
    assert [adapter.scaling for adapter in find_adapters(model)] == [0.0] * 11 + [2.0]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    gone = {id(p) for adapter in adapters[:11] for p in adapter.parameters}
    assert held == {id(p) for p in model.parameters() if p.requires_grad} - gone
    assert not gone & {id(p) for p in optimizer.state}


def test_mixtral_is_the_real_class():
    assert isinstance(base_model_of(lora_mixtral()), MixtralForCausalLM)
