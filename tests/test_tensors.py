"""Tensors of which a process holds a part."""

import pytest
import torch
from torch import nn

from weightlora.errors import ModelError
from weightlora.tensors import (
    forget_whole_,
    gradient_of,
    hide_,
    local,
    note_whole_,
    numel,
    row_dots,
    shards,
    show_,
    to_vector,
    unchanged_weights,
    whole,
)


def test_a_part_of_a_parameter_says_how_large_the_whole_is():
    part, other = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    note_whole_(part, 12, 4)
    assert (numel(part), shards(part), numel(other), shards(other)) == (12, 4, 3, 1)
    forget_whole_(part)
    assert (numel(part), shards(part)) == (3, 1)


def test_a_tensor_that_is_not_cut_up_is_whole_as_it_is():
    tensor = torch.zeros(3)
    assert whole(tensor) is tensor


def test_what_an_engine_shows_stands_for_what_a_parameter_holds_until_it_is_hidden():
    parameter, other = nn.Parameter(torch.zeros(0)), nn.Parameter(torch.ones(2))
    other.grad = torch.ones(2)
    value, gradient = torch.ones(3), torch.full((3,), 2.0)
    show_(parameter, value, gradient)
    assert local(parameter) is value and gradient_of(parameter) is gradient
    assert local(other) is other and gradient_of(other) is other.grad
    show_(parameter, value, None)
    assert gradient_of(parameter) is None
    hide_(parameter)
    hide_(parameter)
    assert local(parameter) is parameter and gradient_of(parameter) is None


def test_scalars_and_vectors_become_one_vector():
    scalars = [torch.tensor(0.5, dtype=torch.bfloat16), torch.tensor(2.0)]
    vectors = [torch.tensor([0.5, 1.0]), torch.tensor([2.0])]
    for tensors, expected in ((scalars, [0.5, 2.0]), (vectors, [0.5, 1.0, 2.0])):
        joined = to_vector(tensors)
        assert joined.dtype == torch.float64 and joined.tolist() == expected


def test_dot_products_of_rows_are_those_of_the_rows_alone():
    first, second = torch.randn(2, 5, 37, generator=torch.Generator().manual_seed(0)).unbind()
    assert row_dots(first, second).tolist() == [float(torch.dot(a, b)) for a, b in zip(first, second, strict=True)]
    assert row_dots(first[:, :0], second[:, :0]).tolist() == [0.0] * 5


def test_a_weight_that_changed_is_named():
    model = nn.Sequential(nn.Linear(100, 100), nn.BatchNorm1d(100)).requires_grad_(False)
    with unchanged_weights(model):
        model(torch.randn(4, 100))  # running statistics are no weights
    with (
        pytest.raises(ModelError, match=r"the forward pass changed the frozen weight '0\.weight'"),
        unchanged_weights(model),
    ):
        model[0].weight.mul_(2)
    with pytest.raises(KeyboardInterrupt), unchanged_weights(model):
        model[0].weight.mul_(2)
        raise KeyboardInterrupt


def test_a_weight_that_zero_3_empties_or_refills_has_not_changed():
    model = nn.Linear(4, 4).requires_grad_(False)
    there, empty = model.weight.data, torch.empty(0)
    for before, after in ((empty, there), (there, empty)):
        model.weight.data = before
        with unchanged_weights(model):
            model.weight.data = after
