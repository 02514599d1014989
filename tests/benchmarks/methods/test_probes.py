"""Variants of the probe: relative to the block, and half-way there."""

import pytest
import torch
from benchmarks.methods import ALL_METHODS
from models import adamw, batch, lora_bert

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import block_of, find_adapters


def scores(rule: str) -> torch.Tensor:
    model = lora_bert()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(selection=rule, keep=3))
    selector.probe([batch(0), batch(1)])
    return torch.tensor(list(selector.scores.values()))


def test_the_variants_divide_by_the_mean_of_the_block_or_by_its_root():
    plain = scores("gradient")
    blocks = [block_of(adapter.name) for adapter in find_adapters(lora_bert())]
    means = torch.stack([plain[[other == block for other in blocks]].mean() for block in blocks])
    torch.testing.assert_close(scores("gradient-per-block"), plain / means)
    torch.testing.assert_close(scores("gradient-half-per-block"), plain / means.sqrt())


@pytest.mark.parametrize("rule", ["gradient", "gradient-per-block"])
def test_the_method_keeps_what_fits_into_a_quarter_of_the_parameters(setting, rule):
    prepared = ALL_METHODS["probe"](setting(options={"selection": rule}, select_steps=2, steps=10))
    (callback,) = prepared.callbacks
    config = callback.config
    assert (config.selection, config.keep, config.keep_parameters) == (rule, None, 0.25)
    assert config.select_steps == 0
