"""The tasks whose runs are all there, and losses minus that of LoRA on all modules."""

from benchmarks.pages.points import complete_tasks, missing, points_of
from benchmarks.results import by_seed
from stored import NAMES, result


def runs():
    made = [result("ours", seed, 0.5 + seed / 10, task="a", names=NAMES, kept=NAMES[: seed + 1]) for seed in range(3)]
    made += [result("lora", seed, 0.4, task=task, names=NAMES, kept=NAMES) for task in "ab" for seed in range(2)]
    return by_seed(made)


def test_losses_are_paired_with_loras_and_costs_averaged():
    found = points_of(runs(), "a", ["ours", "lora"], lambda run: len(run.kept), range(2))
    assert {seed: round(value, 9) for seed, value in found["ours"].differences.items()} == {0: 0.1, 1: 0.2}
    assert found["ours"].x == 1.5 and found["lora"].x == len(NAMES) and found["lora"].loss["mean"] == 0


def test_a_task_is_complete_with_a_run_of_each_label_at_each_seed():
    assert complete_tasks(runs(), "ab", iter(["lora"]), range(2)) == ["a", "b"]
    assert complete_tasks(runs(), "ab", iter(["lora", "ours"]), range(2)) == ["a"]
    assert complete_tasks(runs(), "ab", ["lora"]) == [], "five seeds"
    assert missing("ab", ["a"]) == ["Runs are missing of b."] and missing("ab", ["a", "b"]) == []
