"""The experiment log; `test_readme.py` compares its tables with the stored results."""

from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "log.md"


def test_entries_are_dated_newest_first():
    dates = [line[3:13] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert dates == sorted(dates, reverse=True) and len(dates) > 10
