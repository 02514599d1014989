"""Which adapters a model has, and which are refused."""

import pytest
import torch
from models import lora_bert, lora_mixtral, tiny_bert, tiny_llama, tiny_wav2vec2
from peft import LoHaConfig, LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn

from weightlora.adapters import find_adapters
from weightlora.adapters.finding import refuse_unsaved
from weightlora.errors import ModelError


def test_names_are_those_of_pefts_config_in_model_order():
    assert [adapter.name for adapter in find_adapters(lora_bert(layers=1))] == [
        f"bert.encoder.layer.0.{name}"
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        )
    ]


def test_expert_parameters_carry_their_kind_and_plain_name():
    adapters = {adapter.name: adapter for adapter in find_adapters(lora_mixtral())}
    assert adapters["model.layers.0.mlp.experts.gate_up_proj"].kind == "parameter"
    assert adapters["model.layers.0.mlp.experts.down_proj"].kind == "parameter"
    assert adapters["model.layers.0.self_attn.q_proj"].kind == "module"
    assert len(adapters) == 8


def test_wrappers_make_no_difference():
    model = lora_bert()
    names = [adapter.name for adapter in find_adapters(model)]
    assert [adapter.name for adapter in find_adapters(torch.compile(model))] == names
    assert [adapter.name for adapter in find_adapters(model.base_model)] == names


def test_a_model_with_injected_adapters_works():
    model = inject_adapter_in_model(LoraConfig(target_modules=["query"]), tiny_bert(), "mine")
    assert [adapter.name for adapter in find_adapters(model)] == [
        f"bert.encoder.layer.{i}.attention.self.query" for i in range(2)
    ]


def test_a_model_without_peft_is_refused():
    with pytest.raises(ValueError, match=r"BertForSequenceClassification has no PEFT adapters: call .*get_peft_model"):
        find_adapters(tiny_bert())


def test_an_unknown_adapter_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="adapter_name='other' is not on the model: it has 'default'"):
        find_adapters(lora_bert(), "other")


@pytest.mark.parametrize(("start", "drawn"), [(True, True), ("gaussian", True), (False, False), ("orthogonal", False)])
def test_only_two_ways_to_start_draw_an_a_at_random(start, drawn):
    """With False, PEFT draws B as well."""
    adapters = find_adapters(lora_bert(init_lora_weights=start))
    assert {adapter.drawn for adapter in adapters} == {drawn}


def test_other_peft_methods_are_refused():
    model = get_peft_model(tiny_bert(), LoHaConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match=r"adapter 'default' is .*LOHA.*use a LoraConfig"):
        find_adapters(model, "default")
    with pytest.raises(ValueError, match=r"adapter 'default' is .*LOHA.*use a LoraConfig"):
        find_adapters(model)


def test_merged_and_frozen_adapters_are_refused():
    model = lora_bert()
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"is merged into its base layer: call model.unmerge_adapter"):
        find_adapters(model)
    with pytest.raises(ValueError, match="has no trainable parameter"):
        find_adapters(lora_bert(inference_mode=True))
    partly = lora_bert()
    for parameter in find_adapters(partly)[2].parameters:
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="If you froze it on purpose, name its module in exclude_modules"):
        find_adapters(partly)


def test_adapters_that_share_a_parameter_are_refused():
    model = lora_bert()
    first, second = find_adapters(model)[:2]
    second.layer.lora_A["default"].weight = first.layer.lora_A["default"].weight
    with pytest.raises(ValueError, match="shares a parameter with another adapter"):
        find_adapters(model)


def test_blocks_that_are_compiled_one_by_one_are_refused():
    model = lora_bert()
    layers = model.base_model.model.bert.encoder.layer
    for place in range(2):
        layers[place] = torch.compile(layers[place], backend="eager")
    with pytest.raises(
        ValueError,
        match=r"^adapter 'bert.encoder.layer.0._orig_mod.attention.self.query' .* call block.compile\(\) instead",
    ):
        find_adapters(model)
    for place in range(2):
        layers[place] = layers[place]._orig_mod
        layers[place].compile(backend="eager")
    assert len(find_adapters(model)) == 12 and len(find_adapters(torch.compile(model, backend="eager"))) == 12


def test_two_active_adapters_need_a_name():
    model = lora_bert(task_type=None)
    model.add_adapter("second", LoraConfig(target_modules=["query"]))
    assert len(find_adapters(model)) == 12
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match="2 adapters are active"):
        find_adapters(model)
    assert len(find_adapters(model, "second")) == 2


def test_a_model_without_weights_shares_no_parameter():
    assert len(find_adapters(lora_bert().to("meta"))) == 12


def test_layers_of_a_module_that_is_saved_whole_are_not_listed():
    model = lora_bert(target_modules=["query"], modules_to_save=["pooler"])
    pooler = model.base_model.model.bert.pooler.modules_to_save["default"]
    inject_adapter_in_model(LoraConfig(target_modules=["dense"]), pooler, "default")
    assert [adapter.name for adapter in find_adapters(model)] == [
        "bert.encoder.layer.0.attention.self.query",
        "bert.encoder.layer.1.attention.self.query",
    ]


def test_two_layers_by_one_name_are_refused():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

    model = get_peft_model(Attention(), LoraConfig(target_modules=["attention"]))
    with pytest.raises(ValueError, match=r"'attention' is on nn\.MultiheadAttention, where two LoRA layers"):
        find_adapters(model)


def test_two_adapters_on_several_parameters_of_a_module_are_refused():
    """PEFT saves each by its place in the wrappers of both."""
    model = lora_mixtral()
    experts = model.peft_config["default"].target_parameters
    for name in ("two", "three"):
        model.add_adapter(name, LoraConfig(r=2, target_modules=[], target_parameters=experts))
    model.set_adapter("default")
    for other in ("three", "two"):
        message = rf"'default' and '{other}' are both on several .* of model\.layers\.0\.mlp.*adapter\('{other}'\)"
        with pytest.raises(ValueError, match=message):
            find_adapters(model)
        model.delete_adapter(other)
    assert len(find_adapters(model)) == 8


def test_biases_that_train_in_the_layers_of_another_adapter_are_refused():
    """PEFT saves them by their places in that layer, where there is none when it loads the adapter."""
    model = lora_bert(bias="all")
    model.add_adapter("two", LoraConfig(r=2, target_modules=["value"]))
    with pytest.raises(
        ModelError, match=r"bias='all' cannot .* while 2 adapters are on 'bert\.encoder\.layer\.0.*value'"
    ):
        find_adapters(model)
    model.delete_adapter("two")
    assert len(find_adapters(model)) == 12


def test_a_mixed_model_is_refused():
    model = get_peft_model(tiny_bert(), LoraConfig(target_modules=["query"]), mixed=True)
    with pytest.raises(ValueError, match="is a PeftMixedModel, which PEFT cannot save"):
        find_adapters(model)


def test_a_model_with_no_module_adapted_says_so():
    model = lora_bert()
    model.add_adapter("other", LoraConfig(target_modules=["query"]))
    for layer in (adapter.layer for adapter in find_adapters(model, "other", check=False)):
        layer.delete_adapter("other")
    assert find_adapters(model, "other", check=False) == []
    with pytest.raises(ValueError, match="adapter 'other' adapts no module: check target_modules"):
        find_adapters(model, "other")


def test_a_config_and_a_variant_that_cannot_be_taken_out_are_refused_unless_all_are_asked_for():
    class StrangeLinearVariant:
        """A kind of LoRA that a later PEFT may have."""

    model = lora_bert()
    model.peft_config["default"].bias = "lora_only"
    with pytest.raises(ValueError, match=r"bias='lora_only' cannot be combined with a selection"):
        find_adapters(model)
    model = lora_bert()
    find_adapters(model)[0].layer.lora_variant["default"] = StrangeLinearVariant()
    with pytest.raises(ValueError, match=r"query' is of a kind that cannot be disconnected \(StrangeLinear\)"):
        find_adapters(model)
    assert len(find_adapters(model, check=False)) == 12


def test_an_adapter_beside_which_peft_saves_embeddings_that_are_not_there(tmp_path):
    model = get_peft_model(tiny_wav2vec2(), LoraConfig(target_modules="all-linear"))
    with pytest.raises(ModelError, match=r"adapter 'lm_head' could not be saved: .* but Wav2Vec2ForCTC has none"):
        find_adapters(model)
    with pytest.raises(NotImplementedError):
        model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"adapter 'one\.lm_head' could not be saved"):
        refuse_unsaved(tiny_wav2vec2(), ["one.lm_head", "two.lm_head"])


def test_other_modules_and_models_are_saved():
    refuse_unsaved(tiny_wav2vec2(), ["wav2vec2.encoder.layers.0.attention.k_proj"])
    refuse_unsaved(tiny_llama(), ["lm_head", "model.embed_tokens"])
    refuse_unsaved(tiny_bert().bert.pooler, ["lm_head"])  # not of Transformers
