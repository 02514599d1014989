"""The study of draws: overlaps of sets."""

import pytest
from benchmarks.studies.draws import Draws, jaccard


def test_the_overlap_is_the_mean_over_pairs_of_seeds():
    assert jaccard(["a", "b"], ["b", "c"]) == pytest.approx(1 / 3)
    assert Draws(False, 0, [["a", "b"], ["b", "c"], ["a", "b"]]).overlap == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
