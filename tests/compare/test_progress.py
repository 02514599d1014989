from pathlib import Path

import pytest
from rich.console import Console

from weightlora.compare.progress import Watcher
from weightlora.compare.runner import Process


@pytest.fixture
def runs() -> list[Process]:
    return [Process(name, []) for name in ("lora seed 0", "random seed 0", "lora seed 1", "random seed 1")]


@pytest.mark.parametrize("terminal", [False, True])
def test_every_run_is_shown_with_the_time_that_is_left(runs, terminal):
    now = [0.0]
    console = Console(width=120, force_terminal=terminal, get_time=lambda: now[0])
    with console.capture() as capture, Watcher(console, 1) as watcher:
        watcher.begin(1, 4)
        watcher.aside([Path("seed-0.json.aside")])
        for step in (0, 0, 1, 2, 3, 4):
            watcher.step(runs[0], step, 4 if step else 0)
            now[0] += 20
        watcher.end(runs[0], 120.0, None)
        watcher.step(runs[1], 0, 0)
        watcher.end(runs[1], None, "the loss diverged")
        watcher.step(runs[2], 3, 4)
    said = capture.get()
    assert "4 runs, 1 of them done, 1 at a time" in said and "seed-0.json.aside" in said
    assert "[3/4] random seed 0: the loss diverged; 0:01:00 left" in said
    if terminal:
        assert all(piece in said for piece in ("all runs", "lora seed 1", "75%", "94%"))
    else:
        assert "lora seed 0: step 2/4; 0:05:00 left" in said, "it is long: half a run took 60 s, and 2.5 are left"
        assert "[2/4] lora seed 0: 120 s; 0:04:00 left" in said


def test_nothing_is_left_after_runs_that_took_steps_at_a_time(runs):
    """Their percents add up, whatever the number of their steps."""
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture, Watcher(console, 4) as watcher:
        watcher.begin(0, len(runs))
        for step in range(8):
            for run in runs:
                watcher.step(run, step, 7)
        for run in runs:
            watcher.end(run, 1.0, None)
    lines = capture.get().splitlines()
    assert len(lines) == 1 + len(runs), "no run was long"
    assert lines[-1] == f"[4/4] {runs[-1].name}: 1 s; 0:00:00 left"
