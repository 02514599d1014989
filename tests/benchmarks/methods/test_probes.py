"""The package's probe as a method."""

import pytest
import torch
from benchmarks.methods import ALL_METHODS
from models import adamw, batch, lora_bert

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.rules import GradientProbe


def test_the_scores_by_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GradientProbe, "rows", 1)  # draws are tested with the package
    model, probed = lora_bert(), lora_bert()
    for step in range(2):
        (model(**batch(step)).loss / 2).backward()
    gradients = [adapter.factors[1].grad for adapter in find_adapters(model)]
    plain = torch.stack([gradient.abs().sum() for gradient in gradients])
    means = plain.view(2, 6).mean(1).repeat_interleave(6)
    selector = WeightLora(probed, adamw(probed), WeightLoraConfig(selection="gradient", keep=3))
    selector.probe([batch(0), batch(1)])
    scores = torch.tensor(list(selector.scores.values()))
    torch.testing.assert_close(scores, plain / means, rtol=1e-3, atol=1e-8)


def test_the_method_keeps_what_fits_into_a_quarter_of_the_parameters(setting):
    prepared = ALL_METHODS["probe"].prepare(setting(select_steps=2, steps=10))
    (callback,) = prepared.callbacks
    config = callback.config
    assert (config.selection, config.keep, config.keep_parameters) == ("gradient", None, 0.25)
    assert config.select_steps == 0
