"""What the probe chose at a higher rank, and ranks in proportion to its scores."""

from dataclasses import replace

import pytest
import torch
from benchmarks.methods import ALL_METHODS
from benchmarks.methods.ranks import proportional_ranks
from hypothesis import example, given
from hypothesis import strategies as st
from models import batch

from weightlora.adapters import find_adapters


def prepared(setting, method: str, **options):
    target = {"target_modules": "all-linear", "task_type": "SEQ_CLS"}
    whole = replace(setting(options=options), target=target, batches=lambda: map(batch, range(4)))
    return ALL_METHODS[method](whole)


def test_the_chosen_modules_share_the_parameters_of_all(setting):
    found = find_adapters(prepared(setting, "probe-wide", parameters=1.0).model)
    (rank,) = {adapter.rank for adapter in found}
    assert len(found) < 13 and rank > 8 and {adapter.layer.scaling["default"] for adapter in found} == {2.0}
    whole = sum(prepared(setting, "probe-wide").candidates.values())
    assert sum(adapter.size for adapter in found) == pytest.approx(whole, rel=0.5 / rank)
    assert sum(adapter.size for adapter in found) * 4 / rank <= whole / 4


def test_ranks_follow_the_scores_and_keep_the_scaling(setting):
    one = prepared(setting, "probe-ranks", parameters=0.5)
    found = find_adapters(one.model)
    assert {adapter.layer.scaling["default"] for adapter in found} == {2.0}
    assert len({adapter.rank for adapter in found}) > 1
    assert 0.4 * sum(one.candidates.values()) < sum(a.size for a in found) <= sum(one.candidates.values()) / 2
    few = find_adapters(prepared(setting, "probe-ranks", parameters=0.5, chosen=True).model)
    names = {adapter.name for adapter in find_adapters(prepared(setting, "probe-wide").model)}
    assert {adapter.name for adapter in few} <= names and max(a.rank for a in few) > max(a.rank for a in found)


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda scores: max(scores) > 0.1),
    st.integers(20, 10_000),
)
@example(scores=[3.0, 1.0, 10.0, 0.5, 0.0, 0.0, 0.625], most=124)  # rounding leaves room for a whole rank
def test_ranks_are_the_largest_that_fit(scores, most):
    score = torch.tensor(scores, dtype=torch.float64)
    sizes = torch.tensor([3.0, 5.0, 3.0, 8.0, 5.0, 3.0, 13.0, 2.0][: len(scores)], dtype=torch.float64)
    ranks = torch.tensor(proportional_ranks(score, sizes, most), dtype=torch.float64)
    assert (ranks * sizes).sum() <= most and bool((ranks[score == 0] == 0).all())
    order = score.argsort()
    assert bool((ranks[order].diff() >= 0).all())
    grown = min((rank + 0.5) / one for rank, one in zip(ranks.tolist(), scores, strict=True) if one)
    assert ((score * grown * (1 + 1e-9)).round() * sizes).sum() > most  # the next rank that grows does not fit
