"""Rates tuned on each task: which runs count, and what is said."""

from benchmarks.pages.tuned import METHODS, SEEDS, TASKS, render_tuned_markdown
from stored import result

LOSSES = {"probe": 0.4, "random-like-probe": 0.5, "peft-default": 0.4, "lora-equal": 0.45, "lora": 0.3}


def stored(seeds=SEEDS) -> list:
    return [
        result(
            label, seed, loss + 0.001 * ((seed + len(label)) % 5), task=task, settings={"learning_rate": loss / 100}
        )
        for task in TASKS
        for label, loss in LOSSES.items()
        for seed in seeds
    ]


def test_the_probe_is_counted_against_the_others():
    said = [line for line in render_tuned_markdown(stored()).splitlines() if line.startswith("- Against")]
    assert said[:4] == [
        "- Against random sets of the same sizes: significantly better on 8 of 8 tasks, worse on 0.",
        "- Against PEFT's default list: significantly better on 0 of 8 tasks, worse on 0.",
        "- Against a lower rank on all modules: significantly better on 8 of 8 tasks, worse on 0.",
        "- Against LoRA on all modules: significantly better on 0 of 8 tasks, worse on 8.",
    ]
    assert said[4:] == [line.replace(" 8", " 4") for line in said[:4]], "on the texts that had no part in the rule"


def test_each_method_has_a_row_with_its_rate():
    rows = [line for line in render_tuned_markdown(stored()).splitlines() if line.startswith("| spam |")]
    assert [row.split(" | ")[1:3] for row in rows[1:]] == [
        [words, f"{LOSSES[label] / 100:g}"] for label, words in METHODS.items()
    ]
    assert "0.4020 ± " in rows[1]


def test_only_the_new_seeds_count_and_a_task_without_all_runs_is_named():
    runs = stored()
    assert "| spam |" not in render_tuned_markdown(stored(range(5)))
    assert render_tuned_markdown([*runs, *stored(range(5))]) == render_tuned_markdown(runs)
    text = render_tuned_markdown(runs[1:])
    assert f"Runs are missing of {TASKS[0]}." in text and f"| {TASKS[0]} |" not in text and "of 7 tasks" in text
