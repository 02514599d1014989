"""What the probe chose at a higher rank, and ranks in proportion to its scores."""

from dataclasses import replace

import pytest
from benchmarks.methods import ALL_METHODS
from models import batch

from weightlora.adapters import find_adapters


def prepared(setting, method: str, **options):
    target = {"target_modules": "all-linear", "task_type": "SEQ_CLS"}
    whole = replace(setting(options=options), target=target, batches=lambda: map(batch, range(4)))
    return ALL_METHODS[method].prepare(whole)


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
