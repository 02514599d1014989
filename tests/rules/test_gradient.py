"""The score of the probe by hand: L1 norms of gradients, relative to the block."""

import gc
import weakref

import pytest
import torch
from models import adamw, batch, lora_bert
from peft import LoraConfig, get_peft_model
from torch import nn

from weightlora import WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.gradients import draws_for
from weightlora.layers import relative_to_blocks
from weightlora.rules.gradient import GradientProbe
from weightlora.tensors import forget_whole_, note_whole_


@pytest.fixture
def probed():
    """Adapters with gradients in both factors, and the rule that is to rank them."""
    model = lora_bert()
    adapters = find_adapters(model)
    for adapter in adapters:
        torch.nn.init.normal_(adapter.factors[1], std=0.3)
    model(**batch()).loss.backward()
    return adapters, GradientProbe(adapters, adamw(model), WeightLoraConfig(selection="gradient", keep=3))


def taken(rule, scale: float = 1.0) -> torch.Tensor:
    """The evidence in the gradients that are there. No pass is watched, so there is one draw of each A."""
    with rule.watching(lambda tensor: tensor):
        pass
    return rule.take(scale)


def norms(adapters) -> list[float]:
    return [sum(float(factor.grad.abs().sum()) for factor in adapter.factors) for adapter in adapters]


def test_the_norm_is_that_of_both_factors(probed):
    adapters, rule = probed
    expected = norms(adapters)
    assert all(float(adapter.factors[0].grad.square().sum()) > 0 for adapter in adapters)
    assert taken(rule).tolist() == pytest.approx(expected, rel=1e-5)
    for adapter in adapters:
        for factor in adapter.factors:
            factor.grad *= 8
    assert taken(rule, 8.0).tolist() == pytest.approx(expected, rel=1e-5), "gradients that carry a loss scale"


def test_an_adapter_without_gradients_has_no_norm(probed):
    adapters, rule = probed
    for factor in adapters[4].factors:
        factor.grad = None
    found = taken(rule)
    assert found[4] == 0 and (found > 0).sum() == 11


def test_before_a_probe_there_is_no_norm(probed):
    _, rule = probed
    assert rule.take(1.0).tolist() == [0] * 12


def test_what_never_ran_is_unseen(probed):
    _, rule = probed
    evidence = taken(rule)
    evidence[4] = 0
    rule.update(evidence, 1, lambda score: score > 0)
    assert rule.unseen().tolist() == [index == 4 for index in range(12)]


def test_a_closed_rule_holds_no_layer():
    model = lora_bert()
    adapters = find_adapters(model)
    rule = GradientProbe(adapters, adamw(model), WeightLoraConfig(selection="gradient", keep=3))
    held = weakref.ref(adapters[0].layer)
    rule.close()
    del model, adapters
    gc.collect()
    assert held() is None


@pytest.mark.parametrize(("rank", "draws"), [(8, 8), (13, 4), (64, 1), (65, 1)])
def test_all_draws_of_an_a_have_64_rows_at_most(rank, draws):
    model = get_peft_model(nn.Sequential(nn.Linear(128, 4)), LoraConfig(r=rank, target_modules=["0"]))
    assert draws_for(find_adapters(model)[0], GradientProbe.rows) == draws


def test_a_part_of_a_factor_stands_for_all_of_its_parts(probed):
    """The mean over the processes is then the whole."""
    adapters, rule = probed
    before = taken(rule)
    cut = adapters[2].factors
    for factor in cut:
        note_whole_(factor, 4 * factor.numel(), 4)
    found = taken(rule)
    for factor in cut:
        forget_whole_(factor)
    assert float(found[2]) == pytest.approx(4 * float(before[2]), rel=1e-6) and float(before[2]) > 0
    assert torch.equal(found[[0, 1, *range(3, 12)]], before[[0, 1, *range(3, 12)]])


def test_blocks_cannot_be_compared_because_their_scores_add_up_to_the_same():
    names = [f"layer.{layer}.{kind}" for layer in range(3) for kind in "abcd"]
    scores = relative_to_blocks(torch.rand(12, generator=torch.Generator().manual_seed(0)), names)
    assert scores.view(3, 4).sum(1).tolist() == pytest.approx([4.0] * 3)
    assert not GradientProbe.compares_blocks
