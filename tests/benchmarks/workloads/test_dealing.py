"""Groups stay whole."""

import pytest
from benchmarks.workloads.dealing import deal_groups

from weightlora.errors import DataError


def test_groups_stay_whole_and_too_few_rows_are_refused():
    rows = [{"text": f"{film} {number}", "label": 0, "film": film} for film in "abcdef" for number in range(4)]
    sizes = {"test": 6, "train": 12}
    dealt = deal_groups(rows, "film", sizes)
    assert [len(of_split) for of_split in dealt.values()] == [6, 12]
    assert len({row["film"] for row in dealt["test"]}) == 2 and dealt == deal_groups(reversed(rows), "film", sizes)
    with pytest.raises(DataError, match="are not enough for splits"):
        deal_groups(rows[:16], "film", sizes)
