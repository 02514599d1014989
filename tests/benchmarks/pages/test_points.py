"""Losses of a side comparison, minus that of LoRA on all modules."""

from benchmarks.pages.points import absent, points_of_tasks
from stored import NAMES, result


def points():
    side = [result("ours", seed, 0.5 + seed / 10, task="a", names=NAMES, kept=NAMES[: seed + 1]) for seed in range(3)]
    side += [result("other", 0, 0.1, task="a"), result("ours", 7, 0.1, task="a")]
    main = [result("lora", seed, 0.4, task=task, names=NAMES, kept=NAMES) for task in "ab" for seed in range(2)]
    main += [result("list", 0, 0.3, task="a", kept=NAMES[:2]), result("gates", 0, 0.3, task="a")]
    return points_of_tasks(side, main, ["ours"], ["lora", "list"], lambda run: len(run.kept))


def test_losses_are_paired_with_loras_and_costs_averaged():
    found = points()
    assert [*found] == ["a"] and {*found["a"]} == {"ours", "lora", "list"}
    assert {seed: round(value, 9) for seed, value in found["a"]["ours"].differences.items()} == {0: 0.1, 1: 0.2}
    assert found["a"]["ours"].x == 2 and found["a"]["list"].x == 2 and found["a"]["lora"].x == len(NAMES)
    assert found["a"]["lora"].loss["mean"] == 0 and found["a"]["list"].loss["ci"] is None


def test_missing_runs_are_counted():
    assert absent(points(), ["ours", "list", "none"]) == 3 + 4 + 5
    assert absent({}, ["ours"]) == 0
