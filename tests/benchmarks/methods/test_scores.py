"""Scores from a record of evidence."""

import pytest
from benchmarks.methods.scores import choose
from stored import NAMES

from weightlora.errors import ConfigError


def test_per_block_a_score_counts_relative_to_the_mean_of_its_block():
    sizes, record = dict.fromkeys(NAMES, 1), {"credit": [9, 6, 3, 1, 0, 0]}
    assert choose(record, sizes, "credit", 2) == NAMES[:2]
    assert choose(record, sizes, "credit-per-block", 2) == [NAMES[0], NAMES[2]], "9 / 7.5 and 3 / 2, over 6 / 7.5"
    with pytest.raises(ConfigError, match="the record has no 'update', which rule 'update' needs"):
        choose(record, sizes, "update", 2)
