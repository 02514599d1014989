"""Sizes, ranks, scalings and factors of single adapters, against PEFT's own arithmetic."""

import pytest
import torch
from models import lora_bert, lora_gpt2, lora_mixtral, lora_zoo
from torch import nn

from weightlora.adapters import find_adapters
from weightlora.adapters.handles import from_blocks, to_blocks
from weightlora.tensors import to_vector


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


def test_what_a_variant_keeps_belongs_to_its_adapter():
    for adapter in find_adapters(lora_bert(use_dora=True)):
        magnitude = adapter.layer.lora_magnitude_vector["default"].weight
        assert adapter.variant == "DoraLinear" and adapter.parameters[2] is magnitude
        assert adapter.size == sum(factor.numel() for factor in adapter.factors) + magnitude.numel()


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
    assert adapter.magnitude is adapter.parameters[2]
    assert find_adapters(lora_bert())[0].magnitude is None


@pytest.mark.parametrize(
    ("which", "shape", "blocks", "experts", "expected"),
    [
        (0, (4, 5), 1, False, (1, 4, 5)),
        (1, (6, 4), 1, False, (1, 6, 4)),
        (0, (4, 2, 3), 2, False, (2, 2, 6)),
        (1, (6, 2, 1), 2, False, (2, 3, 2)),
        (0, (6, 5), 3, True, (3, 2, 5)),
        (1, (7, 6), 3, True, (3, 7, 2)),
    ],
)
def test_there_and_back(which, shape, blocks, experts, expected):
    tensor = torch.randn(shape)
    found = to_blocks(which, tensor, blocks, experts)
    assert found.shape == expected
    assert torch.equal(from_blocks(which, found, shape, experts), tensor)


def test_experts_are_last_in_b():
    b = torch.arange(6.0)[None]  # one output; ranks of experts: r0 e0, r0 e1, r0 e2, r1 e0, ...
    assert to_blocks(1, b, 3, True)[:, 0].tolist() == [[0, 3], [1, 4], [2, 5]]
