"""Fewer modules against fewer steps: which runs are paired, and that only complete ways have a row."""

import pytest
from benchmarks.pages import shorter
from stored import result

from weightlora.errors import DataError

WAY = shorter.Way("task", ("", "side"), "probe", "shorter-81", 2)
MAIN = [
    result(label, seed, loss + 0.1 * seed, task="task")
    for label, loss in (("lora", 0.5), ("probe", 0.6))
    for seed in (0, 1)
]


def short(seed, **settings):
    made = result("shorter-81", seed, 0.8 + 0.1 * seed, task="task")
    return result(
        "shorter-81", seed, 0.8 + 0.1 * seed, task="task", settings={**made.settings, "steps": 4, **settings}
    )


def rows(monkeypatch, side):
    monkeypatch.setattr(shorter, "WAYS", [WAY])
    monkeypatch.setattr(shorter, "runs_in", {"": MAIN, "side": side}.get)
    return shorter.fewer_steps().splitlines()[2:]


def test_a_row_has_both_losses_and_their_difference(monkeypatch):
    (row,) = rows(monkeypatch, [short(0), short(1)])
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["task", "`probe`"] and cells[3].startswith("`shorter-81` (")
    assert [cells[place].split()[0] for place in (2, 4, 5)] == ["+0.1000", "+0.3000", "-0.2000"]


def test_a_way_without_all_seeds_has_no_row(monkeypatch):
    assert rows(monkeypatch, [short(0)]) == []


def test_only_the_number_of_steps_may_differ(monkeypatch):
    with pytest.raises(DataError, match="max_length"):
        rows(monkeypatch, [short(seed, max_length=7) for seed in (0, 1)])
