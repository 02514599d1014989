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
    ],
    ids=["in a container", "one block", "two", "alike", "a list of modules", "one module", "none"],
)
def test_a_number_that_all_modules_share_is_the_place_of_the_model_in_a_container(names, blocks):
    assert blocks_of(names) == blocks


def test_each_score_is_relative_to_the_mean_of_its_block():
    names = ["encoder.layer.0.query", "encoder.layer.0.value", "encoder.layer.1.query", "encoder.layer.1.value"]
    scores = torch.tensor([1.0, 3.0, 100.0, 100.0])
    assert relative_to_blocks(scores, names).tolist() == [0.5, 1.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("names", "scores", "expected"),
    [
        (["layer.0.a", "layer.0.b", "layer.1.a", "pooler"], [1, 3, 2, 6], [0.5, 1.5, 0.5, 1.5]),
        (["embed", "layer.0.a", "layer.1.a"], [6, 2, 5], [1.5, 0.5, 1]),
        (["0", "2", "4"], [1, 2, 3], [0.5, 1, 1.5]),
        (["first", "second"], [1, 3], [0.5, 1.5]),
        (["layer.0.a", "layer.0.b", "layer.1.a", "layer.1.b"], [0, 0, 1, 3], [0, 0, 0.5, 1.5]),
        (["layer.0.a", "layer.1.a", "layer.2.a"], [1, 2, 3], [0.5, 1, 1.5]),
        (["0.layer.0.a", "0.layer.0.b", "0.layer.1.a", "0.layer.1.b"], [1, 3, 2, 6], [0.5, 1.5, 0.5, 1.5]),
    ],
    ids=[
        "a pooler counts to the last block",
        "an embedding to the first",
        "modules of a list",
        "no blocks",
        "dead",
        "one adapter in each block",
        "a model in a container",
    ],
)
def test_modules_outside_the_blocks(names, scores, expected):
    assert relative_to_blocks(torch.tensor(scores).double(), names).tolist() == expected
