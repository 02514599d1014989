"""The score of the probe: L1 norms relative to the block."""

import pytest
import torch
from models import adamw, batch, lora_bert

from weightlora import WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.rules.gradient import GradientNorm, relative_to_blocks


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
    ],
    ids=["a pooler counts to the last block", "an embedding to the first", "modules of a list", "no blocks", "dead"],
)
def test_modules_outside_the_blocks(names, scores, expected):
    assert relative_to_blocks(torch.tensor(scores).double(), names).tolist() == expected


def test_the_norms_are_of_both_factors_and_without_the_loss_scale():
    model = lora_bert()
    adapters = find_adapters(model)
    with torch.no_grad():
        adapters[0].factors[1].fill_(0.1)  # then its A has a gradient, too
    rule = GradientNorm(adapters, adamw(model), WeightLoraConfig(selection="gradient", keep=3))
    (4 * model(**batch()).loss).backward()
    expected = [sum(float(factor.grad.abs().sum()) for factor in adapter.factors) / 4 for adapter in adapters]
    assert rule.take(4.0).tolist() == pytest.approx(expected, rel=1e-5)
    assert float(adapters[0].factors[0].grad.abs().sum()) > 0
    for adapter in adapters[1:]:
        assert not adapter.factors[0].grad.any()


def test_an_adapter_without_gradients_scores_0():
    model = lora_bert()
    adapters = find_adapters(model)
    rule = GradientNorm(adapters, adamw(model), WeightLoraConfig(selection="gradient", keep=3))
    assert not rule.take(1.0).any()
