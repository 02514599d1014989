"""The control: its draw depends on the seed alone."""

import torch
from models import lora_bert

from weightlora import WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.rules.chance import Chance


def test_chance_draws_by_its_seed():
    adapters = find_adapters(lora_bert())
    draws = [Chance(adapters, None, WeightLoraConfig(selection="random", seed=seed)).score for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_seed_may_be_of_any_size():
    """PyTorch refuses one of more than 64 bits."""
    adapters = find_adapters(lora_bert())
    seeds = (1, 127, 2**64 + 1)
    draws = [Chance(adapters, None, WeightLoraConfig(selection="random", seed=seed)).score for seed in seeds]
    assert not torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])


def test_chance_has_a_number_for_each_adapter_and_no_gates():
    adapters = find_adapters(lora_bert())
    rule = Chance(adapters, None, WeightLoraConfig(selection="random"))
    assert rule.score.shape == (12,) and rule.score.dtype == torch.float64 and len(set(rule.score.tolist())) == 12
    assert torch.equal(rule.omega, torch.ones(12, dtype=torch.float64))
