"""Update credit against random sets."""

from pathlib import Path

import pytest
from benchmarks.pages import chance
from benchmarks.pages.runs import pool


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {
        "weightlora": {0: 0.4, 1: 0.4},
        "random": {0: 0.5, 1: 0.6},
        "random-1e-3": {0: 0.3},
        "random-late": {1: 0.4},
    }
    monkeypatch.setattr(chance, "TASKS", ["vader-tweets"])
    monkeypatch.setattr(chance, "losses_of", lambda task, label: losses.get(label, {}))


def test_random_sets_at_the_same_rate_ran_at_update_credits_rate():
    for task, label in chance.SAME_RATE.items():
        rates = [
            {run.settings["learning_rate"] for run in pool()[task, one].values()} for one in (label, "weightlora")
        ]
        assert rates[0] == rates[1] and len(rates[0]) == 1


@pytest.mark.usefixtures("stored")
def test_table_and_totals():
    row, total, *_ = chance.chance().splitlines()[2:]
    assert row.startswith("| vader-tweets | -0.1500 ± ") and "| +0.1000 (0 of 1) | +0.0000 (0 of 1) |" in row
    assert total.startswith("| lower in loss, all tasks (two-sided sign test) | 2 of 2 (p = 0.500) | 0 of 1")
    assert total.endswith("| 0 of 0 (p = 1.000) |"), "a tie is no sign"


@pytest.mark.usefixtures("stored")
def test_picture(tmp_path: Path):
    assert chance.draw_chance(tmp_path / "chance.png").read_bytes().startswith(b"\x89PNG")
