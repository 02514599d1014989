"""Blocks of a model: which module is in which, and scores relative to them."""

import pytest
import torch

from weightlora.layers import block_of, blocks_of, relative_to_blocks


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


@pytest.mark.parametrize(
    ("names", "blocks"),
    [
        (["0.bert.layer.0.query", "0.bert.layer.1.query", "0.pooler"], ["0.bert.layer.0", "0.bert.layer.1", ""]),
        (["layers.3.query", "layers.3.value"], ["layers.3", "layers.3"]),
        (["layers.0.query", "layers.1.query"], ["layers.0", "layers.1"]),
        (["layers.10.query", "layers.1.query"], ["layers.10", "layers.1"]),
        (["0", "2"], ["0", "2"]),
        (["0.layers.5.query"], ["0"]),
        ([], []),
        (["0.bert.layer.0.query", "0.bert.layer.1.query", "2.linear"], ["0.bert.layer.0", "0.bert.layer.1", "2"]),
        (["a.0.b.1.layer.0.q", "a.0.b.1.layer.1.q", "a.1.x"], ["a.0.b.1.layer.0", "a.0.b.1.layer.1", "a.1"]),
        (["layers.0.up", "layers.1.experts.0.up", "layers.2.experts.7.up"], ["layers.0", "layers.1", "layers.2"]),
        (["layer1.0.conv", "layer1.1.conv", "layer1.1.downsample.0"], ["layer1.0", "layer1.1", "layer1.1"]),
        (["encoder.block.0.layer.0.q", "decoder.block.0.layer.0.q"], ["encoder.block.0", "decoder.block.0"]),
        (["stages.0.blocks.0.q", "stages.1.blocks.0.q", "stages.1.blocks.1.q"], ["stages.0", "stages.1", "stages.1"]),
    ],
    ids=[
        "in a container",
        "one block",
        "two",
        "alike",
        "a list of modules",
        "one module",
        "none",
        "beside a head in a container",
        "in two containers",
        "experts in blocks",
        "a list in a block",
        "two stacks",
        "stages",
    ],
)
def test_a_place_in_a_container_is_no_block(names, blocks):
    assert blocks_of(names) == blocks


def test_each_score_is_relative_to_the_mean_of_its_block():
    names = ["encoder.layer.0.query", "encoder.layer.0.value", "encoder.layer.1.query", "encoder.layer.1.value"]
    scores = torch.tensor([1.0, 3.0, 100.0, 100.0])
    assert relative_to_blocks(scores, names).tolist() == [0.5, 1.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("names", "scores", "expected"),
    [
        (["layer.0.a", "layer.0.b", "layer.1.a", "pooler"], [1, 3, 2, 6], [0.5, 1.5, 0.5, 1.5]),
        (["embed", "layer.0.a", "layer.1.a", "layer.1.b"], [6, 2, 5, 15], [1.5, 0.5, 0.5, 1.5]),
        (["0", "2", "4"], [1, 2, 3], [0.5, 1, 1.5]),
        (["first", "second"], [1, 3], [0.5, 1.5]),
        (["layer.0.a", "layer.0.b", "layer.1.a", "layer.1.b"], [0, 0, 1, 3], [0, 0, 0.5, 1.5]),
        (["layer.0.a", "layer.1.a", "layer.2.a"], [1, 2, 3], [0.5, 1, 1.5]),
        (["layer.0.a", "layer.1.a", "pooler"], [1, 2, 3], [0.5, 1, 1.5]),
        (["0.layer.0.a", "0.layer.0.b", "0.layer.1.a", "0.layer.1.b"], [1, 3, 2, 6], [0.5, 1.5, 0.5, 1.5]),
    ],
    ids=[
        "a pooler counts to the last block",
        "an embedding to the first",
        "modules of a list",
        "no blocks",
        "dead",
        "one adapter in each block",
        "one adapter in each block, and a pooler",
        "a model in a container",
    ],
)
def test_modules_outside_the_blocks(names, scores, expected):
    assert relative_to_blocks(torch.tensor(scores).double(), names).tolist() == expected
