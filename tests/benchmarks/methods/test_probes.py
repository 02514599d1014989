"""The probe with another norm."""

import pytest
import torch
from benchmarks.methods import ALL_METHODS
from models import adamw, batch, lora_bert

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.rules import GradientProbe


def scores(rule: str) -> torch.Tensor:
    model = lora_bert()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(selection=rule, keep=3))
    selector.probe([batch(0), batch(1)])
    return torch.tensor(list(selector.scores.values()))


def test_the_scores_by_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GradientProbe, "rows", 1)  # draws are tested with the package
    model = lora_bert()
    for step in range(2):
        (model(**batch(step)).loss / 2).backward()
    gradients = [adapter.factors[1].grad for adapter in find_adapters(model)]
    plain = torch.stack([gradient.abs().sum() for gradient in gradients])
    means = plain.view(2, 6).mean(1).repeat_interleave(6)
    close = {"rtol": 1e-3, "atol": 1e-8}
    torch.testing.assert_close(scores("gradient"), plain / means, **close)
    torch.testing.assert_close(scores("gradient-energy"), torch.stack([g.norm() for g in gradients]), **close)


@pytest.mark.parametrize("rule", ["gradient", "gradient-energy"])
def test_the_method_keeps_what_fits_into_a_quarter_of_the_parameters(setting, rule):
    prepared = ALL_METHODS["probe"](setting(options={"selection": rule}, select_steps=2, steps=10))
    (callback,) = prepared.callbacks
    config = callback.config
    assert (config.selection, config.keep, config.keep_parameters) == (rule, None, 0.25)
    assert config.select_steps == 0
