import pytest
import torch
from models import lora_bert, lora_gpt2, lora_mixtral, lora_zoo, tiny_bert
from peft import LoHaConfig, LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn

from weightlora.adapters import block_of, find_adapters
from weightlora.tensors import to_vector


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


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("bert.encoder.layer.3.attention.self.query", "bert.encoder.layer.3"),
        ("model.layers.10.mlp.experts.7.up_proj", "model.layers.10"),
        ("0", "0"),
        ("pooler.dense", ""),
        ("h2.mlp", ""),
    ],
)
def test_a_block_is_the_path_up_to_the_first_number(name, block):
    assert block_of(name) == block


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


@pytest.mark.parametrize("make", [lora_bert, lora_zoo, lora_gpt2, lora_mixtral])
def test_sizes_add_up_to_the_trainable_parameters(make):
    model = make(task_type=None)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(adapter.size for adapter in find_adapters(model)) == trainable


@pytest.mark.parametrize("make", [lora_bert, lora_zoo, lora_gpt2, lora_mixtral])
def test_the_blocks_product_is_pefts_own_delta_weight(make):
    """The layout of experts and grouped convolutions, against PEFT's arithmetic."""
    for adapter in find_adapters(make()):
        for parameter in adapter.parameters:
            nn.init.normal_(parameter)
        a, b = (adapter.to_blocks(i, factor) for i, factor in enumerate(adapter.factors))
        assert torch.equal(adapter.from_blocks(0, a), adapter.factors[0])
        assert torch.equal(adapter.from_blocks(1, b), adapter.factors[1])
        if getattr(adapter.layer.get_base_layer(), "groups", 1) > 1:
            continue  # PEFT cannot merge these; the expansion test compares their outputs
        product = (b @ a) * adapter.scaling
        delta = adapter.layer.get_delta_weight(adapter.adapter_name)
        if adapter.kind == "module":
            product = product.squeeze(0)
            if product.shape != delta.shape and product.numel() == delta.numel() and delta.dim() == 2:
                product = product.T  # embedding, Conv1D
            elif getattr(adapter.layer, "fan_in_fan_out", False):
                product = product.T
        torch.testing.assert_close(product.reshape(delta.shape), delta)


def test_a_model_without_peft_is_refused():
    with pytest.raises(ValueError, match=r"BertForSequenceClassification has no PEFT adapters: call .*get_peft_model"):
        find_adapters(tiny_bert())


def test_an_unknown_adapter_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="adapter_name='other' is not on the model: it has 'default'"):
        find_adapters(lora_bert(), "other")


def test_other_peft_methods_are_refused():
    model = get_peft_model(tiny_bert(), LoHaConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match=r"adapter 'default' is .*LOHA.*use a LoraConfig"):
        find_adapters(model, "default")
    with pytest.raises(ValueError, match=r"adapter 'default' is .*LOHA.*use a LoraConfig"):
        find_adapters(model)


def test_what_a_variant_keeps_belongs_to_its_adapter():
    for adapter in find_adapters(lora_bert(use_dora=True)):
        magnitude = adapter.layer.lora_magnitude_vector["default"].weight
        assert adapter.variant == "DoraLinear" and adapter.parameters[2] is magnitude
        assert adapter.size == sum(factor.numel() for factor in adapter.factors) + magnitude.numel()


def test_merged_and_frozen_adapters_are_refused():
    model = lora_bert()
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"is merged into its base layer: call model.unmerge_adapter"):
        find_adapters(model)
    with pytest.raises(ValueError, match="has no trainable parameter"):
        find_adapters(lora_bert(inference_mode=True))


def test_adapters_that_share_a_parameter_are_refused():
    model = lora_bert()
    first, second = find_adapters(model)[:2]
    second.layer.lora_A["default"].weight = first.layer.lora_A["default"].weight
    with pytest.raises(ValueError, match="shares a parameter with another adapter"):
        find_adapters(model)


def test_two_active_adapters_need_a_name():
    model = lora_bert(task_type=None)
    model.add_adapter("second", LoraConfig(target_modules=["query"]))
    assert len(find_adapters(model)) == 12
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match="2 adapters are active"):
        find_adapters(model)
    assert len(find_adapters(model, "second")) == 2


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_follows_the_scaling(rslora):
    adapter = find_adapters(lora_bert(use_rslora=rslora))[0]
    adapter.set_scaling_(1.7)
    assert adapter.scaling == 1.7
    root = 2 if rslora else 4
    assert adapter.layer.lora_alpha["default"] == pytest.approx(1.7 * root)
    adapter.set_scaling_(3.0)
    assert adapter.layer.lora_alpha["default"] == 3 * root
    assert isinstance(adapter.layer.lora_alpha["default"], int)


def test_scalars_of_several_dtypes_become_one_vector():
    vector = to_vector([torch.tensor(0.5, dtype=torch.bfloat16), torch.tensor(2.0)])
    assert vector.dtype == torch.float64 and vector.tolist() == [0.5, 2.0]
