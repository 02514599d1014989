"""Folding, padding and comparing pairs, against dense products."""

import math
from dataclasses import replace

import pytest
import torch

from weightlora.errors import ModelError
from weightlora.export.pairs import Pair, common_rank, difference, fold


def linear(rank=3, scaling=-2.5, name="q") -> Pair:
    return Pair(name, name, "linear", torch.randn(rank, 6), torch.randn(5, rank), rank, scaling)


def grouped(rank=4, groups=2) -> Pair:
    """A Conv1d of 8 inputs and 6 outputs in two groups, kernel 3."""
    a, b = torch.randn(rank, 4, 3), torch.randn(6, rank // groups, 1)
    return Pair("conv", "conv", "convolution", a, b, rank, 0.5, groups)


def experts(rank=2, number=3) -> Pair:
    a, b = torch.randn(rank * number, 6), torch.randn(5, rank * number)
    return Pair("experts.up", "experts", "parameter", a, b, rank, -7.5, number)


def dense(pair: Pair) -> torch.Tensor:
    a, b = pair.in_blocks()
    return pair.scaling * b @ a


@pytest.mark.parametrize("make", [linear, grouped, experts])
def test_a_folded_and_padded_pair_adds_the_same(make):
    pair = make()
    after = fold(pair, 8)
    assert (after.scaling, after.rank) == (1.0, 8)
    assert after.a.shape[0] == 8 * (pair.blocks if pair.experts else 1)
    torch.testing.assert_close(dense(after), dense(pair), rtol=0, atol=1e-6)
    assert fold(pair).a.shape == pair.a.shape


def test_experts_are_multiplied_as_peft_does():
    pair = experts()
    a, b = pair.in_blocks()
    torch.testing.assert_close(a[1], pair.a[2:4].double())
    torch.testing.assert_close(b[1], pair.b.reshape(5, 2, 3)[:, :, 1].double())


def test_the_common_rank_divides_among_the_groups_of_every_convolution():
    assert common_rank([linear(3), linear(5)]) == 5
    assert common_rank([linear(5), grouped(4, 2)]) == 6
    assert common_rank([experts(2), linear(1)]) == 2


@pytest.mark.parametrize("make", [linear, grouped, experts])
def test_the_difference_is_that_of_the_dense_products(make):
    first = make()
    second = replace(make(), scaling=1.5)
    expected = torch.linalg.vector_norm(dense(first) - dense(second)) / torch.linalg.vector_norm(dense(first))
    assert difference(first, second) == pytest.approx(float(expected), rel=1e-9)
    assert difference(first, first) < 1e-15


def test_a_difference_from_nothing_is_the_norm():
    nothing = replace(linear(), scaling=0.0)
    other = linear()
    assert difference(nothing, other) == pytest.approx(float(torch.linalg.vector_norm(dense(other))), rel=1e-9)
    assert difference(nothing, nothing) == 0


def test_other_shapes_are_infinitely_far():
    assert difference(linear(), replace(linear(), b=torch.randn(4, 3))) == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_dtype_that_cannot_hold_the_product_is_refused(dtype):
    pair = linear(scaling=1e39)
    with pytest.raises(ModelError, match=r"adapter 'q' has entries that are no finite b?float16 once its scaling of"):
        fold(pair, None, dtype)


@pytest.mark.parametrize("factor", ["a", "b"])
def test_an_adapter_with_nan_is_refused(factor):
    pair = linear()
    getattr(pair, factor)[0, 0] = math.nan
    with pytest.raises(ModelError, match=r"adapter 'q' has entries that are no finite float32"):
        fold(pair)
