"""The score of a probe by hand: the root of the mean energy of an adapter's gradients."""

import pytest
import torch
from models import adamw, batch, lora_bert

from weightlora import WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.rules.gradient import GradientNorm
from weightlora.tensors import forget_whole_, note_whole_


@pytest.fixture
def probed():
    """Adapters with gradients in both factors, and the rule that is to rank them."""
    model = lora_bert()
    adapters = find_adapters(model)
    for adapter in adapters:
        torch.nn.init.normal_(adapter.factors[1], std=0.3)
    model(**batch()).loss.backward()
    return adapters, GradientNorm(adapters, adamw(model), WeightLoraConfig(selection="gradient", keep=3))


def energies(adapters) -> list[float]:
    return [sum(float(factor.grad.square().sum()) for factor in adapter.factors) for adapter in adapters]


def test_the_energy_of_one_batch_is_that_of_both_factors(probed):
    adapters, rule = probed
    expected = energies(adapters)
    assert all(float(adapter.factors[0].grad.square().sum()) > 0 for adapter in adapters)
    assert rule.take(1.0).tolist() == pytest.approx(expected, rel=1e-5)
    for adapter in adapters:
        for factor in adapter.factors:
            factor.grad *= 8
    assert rule.take(8.0).tolist() == pytest.approx(expected, rel=1e-5), "gradients that carry a loss scale"


def test_an_adapter_without_gradients_has_no_energy(probed):
    adapters, rule = probed
    for factor in adapters[4].factors:
        factor.grad = None
    taken = rule.take(1.0)
    assert taken[4] == 0 and (taken > 0).sum() == 11


def test_a_part_of_a_factor_stands_for_all_of_its_parts(probed):
    """The mean over the processes is then the whole."""
    adapters, rule = probed
    before = rule.take(1.0)
    cut = adapters[2].factors
    for factor in cut:
        note_whole_(factor, 4 * factor.numel(), 4)
    taken = rule.take(1.0)
    for factor in cut:
        forget_whole_(factor)
    assert float(taken[2]) == pytest.approx(4 * float(before[2]), rel=1e-6)
    assert torch.equal(taken[[0, 1, *range(3, 12)]], before[[0, 1, *range(3, 12)]])


def test_the_score_is_the_root_of_the_mean_over_batches(probed):
    _, rule = probed
    assert rule.score.tolist() == [0] * 12
    first, second = torch.arange(12, dtype=torch.float64), torch.full((12,), 8, dtype=torch.float64)
    rule.update(first, 1, best=None)
    assert rule.score.tolist() == pytest.approx(first.sqrt().tolist())
    rule.update(second, 2, best=None)
    assert rule.score.tolist() == pytest.approx(((first + second) / 2).sqrt().tolist())
    assert rule.decide(lambda score: score >= score.topk(3).values[-1]).nonzero().flatten().tolist() == [9, 10, 11]
