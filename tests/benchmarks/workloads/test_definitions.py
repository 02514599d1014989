"""WordNet's definitions: the real data, and one line of it."""

from collections import Counter

import pytest
from benchmarks.workloads import definitions

from weightlora.train.splitting import distinct


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ('00021007 13 n 01 soup 0 000 | a liquid food; "she ate soup"  ', {"text": "a liquid food", "label": 9}),
        ("00021007 42 v 01 be 0 000 | exist; live  ", {"text": "exist; live", "label": 37}),
        ("00021007 43 v 01 rain 0 000 | fall from clouds  ", None),
        ('00021007 13 n 01 soup 0 000 | ; "she ate soup"  ', None),
    ],
)
def test_a_line_is_parsed(line, row):
    assert definitions.parse(line) == row
    assert row is None or definitions.CLASSES[row["label"]] in ("food", "to be")


def test_the_real_definitions():
    splits = definitions.load_splits()
    assert {name: len(rows) for name, rows in splits.items()} == definitions.SPLIT_SIZES
    rows = [row for split in splits.values() for row in split]
    assert len(distinct(rows)) == len(rows) and all(row["text"] for row in rows)
    total = Counter(row["label"] for row in rows)
    assert set(total) == set(range(38)) and max(total.values()) <= definitions.PER_CLASS and min(total.values()) > 215
    for split in splits.values():
        counts = Counter(row["label"] for row in split)
        assert len(counts) == 38 and max(counts.values()) < 0.04 * len(split)
    assert splits["test"][0] == {"text": "refer to or be relevant or familiar to", "label": 32}, "on every machine"
