"""The study of growth: a step, the disconnect and the load by number of adapters."""

import pytest
import torch
from benchmarks.studies.growth import LINEARS, make_base, measure_growth
from torch import nn


@pytest.mark.parametrize("n", [2, 6, 14])
def test_the_model_has_n_linear_layers_and_all_of_them_count(n):
    base = make_base(n, width=4)
    linears = [module for module in base.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == n and len(base.layers) == -(-n // LINEARS)
    base(torch.ones(1, 4)).sum().backward()
    assert all(linear.weight.grad.abs().sum() > 0 for linear in linears)


def test_each_disconnect_is_measured_and_loads_what_was_kept():
    figures = measure_growth(12, rounds=2, width=4, rank=2)
    assert [(c.rule, c.kept) for c in figures.choices] == [("credit", 1), ("credit", 6), ("credit", 12), ("stoiht", 6)]
    assert figures.ratios.keys() == figures.optimizer_ratios.keys() == {"credit", "stoiht"}
    assert 0 < figures.optimizer < figures.step
    assert all(choice.disconnect > 0 and choice.load > 0 for choice in figures.choices)
