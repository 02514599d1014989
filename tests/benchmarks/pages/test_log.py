"""The tables of the experiment log."""

from pathlib import Path

import pytest
from benchmarks.pages.log import TABLES

PAGE = Path(__file__).parents[3] / "docs" / "log.md"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_on_the_page(name: str):
    assert f"<!-- {name} -->\n{TABLES[name]()}\n<!-- /{name} -->" in PAGE.read_text(encoding="utf-8")


def test_entries_are_dated_newest_first():
    dates = [line[3:13] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert dates == sorted(dates, reverse=True) and len(dates) > 10
