"""Update credit against random sets."""

from pathlib import Path

import pytest
from benchmarks.pages import chance
from stored import result

from weightlora.train.result import Result


def run(label: str, seed: int, loss: float, rate: float, method: str = "random", task: str = "imdb") -> Result:
    settings = {"label": label, "learning_rate": rate, "method": method}
    return result(label, seed, loss, task=task, settings=settings)


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    main = [run("weightlora", seed, 0.4, 0.001, "weightlora") for seed in (0, 1)]
    main += [run("weightlora", 0, 0.4, 0.001, "weightlora", "spam")]
    main += [run("random", seed, 0.5 + 0.1 * seed, 0.002) for seed in (0, 1)]
    side = (run("random-1e-3", 0, 0.3, 0.001), run("another", 0, 0.2, 0.001, "top"))
    monkeypatch.setattr(chance, "runs_in", lambda study="": side if study else tuple(main))


def test_random_sets_at_the_same_rate_come_from_any_study():
    found = chance.losses()
    assert found["random"] == {"imdb": {0: 0.5, 1: 0.6}}
    assert found["same-rate"] == {"imdb": {0: 0.3}}
    assert found["random-late"] == {}


def test_table_and_totals():
    row, total = chance.chance().splitlines()[2:]
    assert row.startswith("| imdb | -0.1500 ± ") and "| +0.1000 (0 of 1) |  |" in row
    assert total.startswith("| lower in loss, all tasks (two-sided sign test) | 2 of 2 (p = 0.500) | 0 of 1")


def test_picture(tmp_path: Path):
    assert chance.draw_chance(tmp_path / "chance.png").read_bytes().startswith(b"\x89PNG")
