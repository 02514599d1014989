"""A start along the gradient."""

import torch
from benchmarks.methods import ALL_METHODS, start
from models import adamw, batch, lora_bert, tiny_bert

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

BATCHES = [batch(step) for step in range(4)]


def chosen_by(selection: str, model: torch.nn.Module) -> WeightLora:
    selector = WeightLora(model, adamw(model), WeightLoraConfig(selection=selection, keep_parameters=0.3))
    selector.probe(BATCHES)
    return selector


def test_rows_of_a_capture_most_of_the_gradient_of_the_frozen_weight():
    plain = tiny_bert()
    for one in BATCHES:
        plain(**one).loss.backward()
    adapters = chosen_by("along-gradient", lora_bert(r=2)).adapters
    assert adapters
    for adapter in adapters:
        a, b = (factor.detach() for factor in adapter.factors)
        gradient = plain.get_submodule(adapter.name).weight.grad
        torch.testing.assert_close(a @ a.T, torch.eye(2) * start.SCALE**2 / 3, atol=1e-5, rtol=1e-4)
        captured = (gradient @ a.T).norm() / a.norm(dim=1).mean()
        assert captured >= 0.95 * torch.linalg.svdvals(gradient)[:2].norm(), "but for what a sketch misses"
        assert not b.any()


def test_it_keeps_what_the_default_keeps_and_leaves_no_hooks():
    model = lora_bert()
    selector, usual = chosen_by("along-gradient", model), chosen_by("gradient", lora_bert())
    assert selector.kept == usual.kept and selector.scores == usual.scores
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for adapter, other in zip(selector.adapters, usual.adapters, strict=True):
        assert not torch.equal(adapter.factors[0], other.factors[0])


def test_the_method_is_the_probe_with_another_start(setting):
    prepared = ALL_METHODS["along-gradient"].prepare(setting())
    config = prepared.selection.config
    assert (config.selection, config.keep, config.keep_parameters) == ("along-gradient", None, 0.25)
    assert len(find_adapters(prepared.model)) == 4
