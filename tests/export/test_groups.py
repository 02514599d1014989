"""Incomplete groups are found, and completed with zeros of the right widths."""

import pytest
import torch
from exports import saved
from models import lora_gpt2, tiny_llama
from torch import nn

from weightlora.errors import ModelError
from weightlora.export.groups import complete, incomplete
from weightlora.export.source import read_source


def test_incomplete_groups_are_found_by_parent():
    names = ["a.q_proj", "a.k_proj", "a.v_proj", "b.v_proj", "b.o_proj", "b.mlp.up_proj", "q_proj"]
    assert incomplete(names) == {
        "b.v_proj": ["b.q_proj", "b.k_proj"],
        "b.mlp.up_proj": ["b.mlp.gate_proj"],
        "q_proj": ["k_proj", "v_proj"],
    }


def test_zeros_have_the_widths_of_the_base():
    pairs = read_source(saved("a few modules")).pairs
    after = complete(pairs, tiny_llama())
    assert [pair.name.removeprefix("model.layers.") for pair in after] == [
        "0.self_attn.q_proj",
        "0.self_attn.k_proj",
        "0.self_attn.v_proj",
        "1.mlp.up_proj",
        "1.mlp.gate_proj",
        "1.self_attn.k_proj",
        "1.self_attn.q_proj",
        "1.self_attn.v_proj",
    ]
    added = {pair.name: pair for pair in after if pair not in pairs}
    shapes = {name.rpartition(".")[2]: (tuple(p.a.shape), tuple(p.b.shape)) for name, p in added.items()}
    # one key and value head of two query heads; the rank is the one of the sibling
    assert shapes == {
        "k_proj": ((4, 16), (8, 4)),
        "v_proj": ((4, 16), (8, 4)),
        "gate_proj": ((2, 16), (24, 2)),
        "q_proj": ((4, 16), (16, 4)),
    }
    assert not any(pair.a.any() or pair.b.any() for pair in added.values())


def test_nothing_is_added_to_whole_groups_or_to_names_that_the_model_has_not():
    pairs = read_source(saved("gates")).pairs
    assert complete(pairs, tiny_llama()) == pairs
    pairs = read_source(saved("a few modules")).pairs
    assert complete(pairs, nn.ModuleDict()) == pairs


def test_a_conv1d_has_its_widths_too_and_another_module_is_refused():
    (pair, *_) = read_source(saved("a few modules")).pairs
    conv = lora_gpt2().unload().transformer.h[0].attn.c_attn
    model = nn.Module()
    for part in pair.name.split(".")[:-1]:
        model.add_module(part, nn.Module())
    parent = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "k_proj": conv, "v_proj": nn.Embedding(2, 2)})

    class Base(nn.Module):
        def named_modules(self, *_):
            yield from ((f"{pair.name.rpartition('.')[0]}.{name}", module) for name, module in parent.items())

    with pytest.raises(ModelError, match="v_proj is a Embedding, so zeros cannot complete its group"):
        complete([pair], Base())
    del parent["v_proj"]
    assert torch.equal(complete([pair], Base())[1].b, torch.zeros(48, 4))
