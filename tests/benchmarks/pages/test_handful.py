"""Five of 36 adapters."""

from benchmarks.pages.handful import WAYS, handful


def test_one_row_per_way_and_random_sets_are_the_reference():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in handful().splitlines()[2:]]
    assert [row[0] for row in rows] == list(WAYS)
    assert rows[0][3] == rows[0][5] == "" and rows[0][1] == "39,936 to 58,368"
    assert all(row[3].endswith("of 5)") and row[5].endswith("of 5)") for row in rows[1:])
