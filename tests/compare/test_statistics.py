"""Means, intervals and paired differences, against values computed by hand."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightlora.compare.statistics import excludes_zero, interval, jaccard, paired, summarize
from weightlora.errors import DataError

LOSSES = st.lists(st.floats(0.1, 2), min_size=1, max_size=6)


class Run(NamedTuple):
    label: str
    seed: int
    held_out_loss: float
    task: str = "t"
    metric: str = "accuracy"
    value: float = 0.75
    adapter_parameters_after: int = 100
    kept: list[str] | None = None


def runs(label, losses, **changes):
    return [Run(label, seed, loss, **changes) for seed, loss in enumerate(losses)]


def test_the_interval_is_the_t_interval():
    # mean 2, standard deviation 1, standard error 1 / sqrt(3), t(0.975; 2) = 4.302653
    assert interval([1.0, 2.0, 3.0]) == {"mean": pytest.approx(2.0), "ci": pytest.approx(2.484138, rel=1e-6)}
    assert interval([0.0, 1.0])["ci"] == pytest.approx(6.353102, rel=1e-6)
    assert interval([0.3]) == {"mean": 0.3, "ci": None}


def test_differences_are_paired_by_seed_over_the_common_seeds():
    # differences -0.10, -0.11, -0.08: standard deviation 0.0152753, times 4.302653 / sqrt(3)
    found = paired({0: 0.40, 1: 0.41, 2: 0.45, 3: 0.90}, {2: 0.53, 7: 0.1, 0: 0.50, 1: 0.52})
    assert found == {"mean": pytest.approx(-0.29 / 3), "ci": pytest.approx(0.0379459, rel=1e-5), "wins": 3}
    assert paired({0: 0.4}, {1: 0.4}) is None
    assert paired({0: 0.4, 1: 0.5, 2: 0.6}, dict.fromkeys(range(3), 0.5))["wins"] == 1, "a tie is no win"


def test_zero_is_inside_or_outside():
    assert excludes_zero({"mean": -0.2, "ci": 0.1}) and not excludes_zero({"mean": -0.1, "ci": 0.2})
    assert not excludes_zero({"mean": -0.1, "ci": None}) and not excludes_zero(None)
    assert not excludes_zero(paired({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7})), "the same runs"


def test_jaccard_is_the_mean_over_pairs_of_seeds():
    # {a b} {b c}: 1/3; {a b} {a b c}: 2/3; {b c} {a b c}: 2/3
    assert jaccard([["a", "b"], ["c", "b"], ["a", "b", "c"]]) == pytest.approx(5 / 9)
    assert jaccard([["a"], None, ["a"]]) is None and jaccard([["a"]]) is None
    assert jaccard([[], []]) == 1


def test_rows_come_by_loss_with_the_references_that_were_asked_for():
    found = summarize([*runs("b", [0.5, 0.6]), *runs("random", [0.4, 0.7], kept=["a"])], ("random",))["tasks"]["t"]
    assert list(found) == ["b", "random"]
    assert list(found["b"]) == ["seeds", "loss", "metric", "trainable_parameters", "vs_random", "jaccard"]
    assert found["b"]["vs_random"]["wins"] == 1 and found["random"]["vs_random"] is None
    assert (found["b"]["jaccard"], found["random"]["jaccard"]) == (None, 1)
    assert found["b"]["metric"] == {"name": "accuracy", "mean": 0.75, "ci": 0.0}


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(DataError, match="two results of one seed of a"):
        summarize([Run("a", 0, 0.5), Run("a", 0, 0.5)], ())
    with pytest.raises(DataError, match="different metrics: accuracy, f1"):
        summarize([Run("a", 0, 0.5), Run("b", 0, 0.5, metric="f1")], ())


@given(LOSSES, LOSSES)
def test_two_references_see_each_other_mirrored(lora, random):
    rows = summarize([*runs("lora", lora), *runs("random", random)], ("lora", "random"))["tasks"]["t"]
    one, other = rows["lora"]["vs_random"], rows["random"]["vs_lora"]
    assert one["mean"] == pytest.approx(-other["mean"])
    assert one["wins"] + other["wins"] <= min(len(lora), len(random))
