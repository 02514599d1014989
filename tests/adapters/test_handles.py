import pytest
import torch
from models import lora_bert, lora_gpt2, lora_mixtral, lora_zoo, tiny_bert
from peft import LoHaConfig, LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn

from weightlora.adapters import find_adapters, own_name, tuner_of
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


def test_blocks_that_are_compiled_one_by_one_are_refused():
    model = lora_bert()
    layers = model.base_model.model.bert.encoder.layer
    layers[1] = torch.compile(layers[1], backend="eager")
    with pytest.raises(ValueError, match=r"^adapter 'bert.encoder.layer.1._orig_mod.* call block.compile\(\) instead"):
        find_adapters(model)
    layers[1] = layers[1]._orig_mod
    layers[1].compile(backend="eager")
    assert len(find_adapters(model)) == 12 and len(find_adapters(torch.compile(model, backend="eager"))) == 12


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


def by_name(model) -> dict:
    return {adapter.name: adapter for adapter in find_adapters(model)}


def test_the_ranks_that_a_layer_can_have_follow_from_its_sizes_and_groups():
    zoo = by_name(lora_zoo())
    assert {name: (one.blocks, one.rank_unit, one.max_rank) for name, one in zoo.items()} == {
        "embed": (1, 1, 12),
        "linear": (1, 1, 12),
        "conv1": (2, 2, 8),
        "conv2": (1, 1, 8),
        "conv3": (1, 1, 4),
    }
    experts = by_name(lora_mixtral())["model.layers.0.mlp.experts.gate_up_proj"]
    assert experts.blocks == experts.layer.num_experts > 1 == experts.rank_unit
    a, b = (experts.to_blocks(i, factor) for i, factor in enumerate(experts.factors))
    assert experts.max_rank == min(a.shape[2], b.shape[1])


def test_the_bias_of_b_is_there_where_it_was_asked_for():
    assert by_name(lora_zoo())["linear"].bias is by_name(lora_zoo())["embed"].bias is None
    linear = by_name(lora_zoo(lora_bias=True, target_modules=["linear"]))["linear"]
    assert linear.bias is linear.layer.lora_B["default"].bias and linear.bias is linear.parameters[2]


@pytest.mark.parametrize("rslora", [False, True])
def test_new_factors_are_those_of_the_layer_and_its_scaling_is_kept(rslora):
    zoo = by_name(lora_zoo(use_rslora=rslora))
    for name, (width, rank) in {"linear": ("features", 3), "conv2": ("channels", 3), "embed": ("", 5)}.items():
        adapter = zoo[name]
        scaling = adapter.scaling
        blocks = [torch.ones(1, rank, 1).expand(-1, -1, adapter.to_blocks(0, adapter.factors[0]).shape[2])]
        blocks += [torch.ones(1, adapter.to_blocks(1, adapter.factors[1]).shape[1], rank)]
        a, b = (nn.Parameter(adapter.from_blocks(i, block).clone()) for i, block in enumerate(blocks))
        adapter.set_factors_(a, b, rank)
        assert adapter.factors[0] is a and adapter.factors[1] is b
        assert (adapter.rank, adapter.scaling) == (rank, scaling)
        assert adapter.layer.lora_alpha["default"] == pytest.approx(scaling * (rank**0.5 if rslora else rank))
        if width:
            layer = adapter.layer
            widths = getattr(layer.lora_A["default"], f"out_{width}"), getattr(layer.lora_B["default"], f"in_{width}")
            assert widths == (rank, rank)


def test_doras_norm_is_that_of_the_rows_of_the_whole_weight():
    adapter = find_adapters(lora_bert(use_dora=True))[0]
    for factor in adapter.factors:
        nn.init.normal_(factor)
    a, b = adapter.factors
    whole = adapter.layer.base_layer.weight + adapter.scaling * b @ a
    torch.testing.assert_close(adapter.weight_norm(), whole.norm(dim=1).detach())
    assert not adapter.weight_norm().requires_grad
    magnitude = nn.Parameter(torch.ones(16))
    adapter.set_magnitude_(magnitude)
    assert adapter.magnitude is magnitude is adapter.parameters[2]
    assert find_adapters(lora_bert())[0].magnitude is None


def test_names_are_those_before_modules_were_wrapped():
    assert own_name("model._fsdp_wrapped_module.layers.0._checkpoint_wrapped_module.mlp") == "model.layers.0.mlp"


def test_the_tuner_is_pefts_where_there_is_one():
    model = lora_bert()
    assert tuner_of(model) is tuner_of(model.base_model) is model.base_model
    assert tuner_of(inject_adapter_in_model(LoraConfig(target_modules=["query"]), tiny_bert())) is None


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
    model.add_adapter(
        "two", LoraConfig(r=2, target_modules=[], target_parameters=model.peft_config["default"].target_parameters)
    )
    model.set_adapter("default")
    with pytest.raises(
        ValueError, match=r"'default' and 'two' are both on several parameters of model\.layers\.0\.mlp"
    ):
        find_adapters(model)
    model.delete_adapter("two")
    assert len(find_adapters(model)) == 8


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
