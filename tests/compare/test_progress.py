from pathlib import Path

import pytest
from rich.console import Console

from weightlora.compare.progress import BarWatcher, LineWatcher, make_watcher
from weightlora.compare.runs import Run
from weightlora.compare.spec import Comparison


@pytest.fixture
def comparison(tmp_path):
    settings = {"lora": {"task": "t"}, "random": {"task": "t"}}
    return Comparison(tmp_path, settings, {"lora": (1e-3,), "random": (1e-3,)}, 2)


@pytest.mark.parametrize("terminal", [False, True])
def test_every_run_is_shown_with_the_time_that_is_left(comparison, terminal):
    console = Console(width=120, force_terminal=terminal, file=None)
    runs: list[Run] = comparison.runs({"lora": 1e-3, "random": 1e-3})
    with console.capture() as capture, make_watcher(console, 1) as watcher:
        assert type(watcher) is (BarWatcher if terminal else LineWatcher)
        watcher.begin(comparison, [], 4)
        watcher.aside([Path("seed-0.json.aside")])
        for step in range(5):
            watcher.step(runs[0], step, 4 if step else 0)
        watcher.end(runs[0], 10.0, None)
        watcher.step(runs[1], 0, 0)
        watcher.end(runs[1], None, "the loss diverged")
    said = capture.get()
    assert "4 runs, 0 of them done, 1 at a time" in said and "seed-0.json.aside" in said
    assert "random seed 0: the loss diverged" in said
    if not terminal:
        assert "[1/4] lora seed 0: 10 s; about 30 s left" in said
        assert "[2/4] random seed 0: the loss diverged; about 20 s left" in said
