"""Where to spend parameters: differences, and what enters the package."""

import pytest
from benchmarks.pages.ranks import PAIRS, TASKS, render_ranks_markdown
from stored import result

OWN = {method for method, _ in PAIRS}
LABELS = OWN | {reference for _, reference in PAIRS}


def page(**losses: float | tuple[float, float]) -> str:
    """Of losses by label (with _ for -): on both tasks, or on each; 0.5 where nothing is given."""
    means = dict.fromkeys(LABELS, 0.5) | {label.replace("_", "-"): loss for label, loss in losses.items()}
    runs = [
        result(label, seed, (of[place] if isinstance(of, tuple) else of) + 0.001 * (seed * len(label) % 5), task=task)
        for label, of in means.items()
        for place, task in enumerate(TASKS)
        for seed in range(5)
    ]
    return render_ranks_markdown(*([run for run in runs if (run.label in OWN) == own] for own in (True, False)))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ((0.3, 0.5), "better on 1 of 2 tasks, worse on 0; it enters the package."),
        ((0.3, 0.7), "better on 1 of 2 tasks, worse on 1; it does not enter the package."),
        (0.5, "better on 0 of 2 tasks, worse on 0; it does not enter the package."),
    ],
)
def test_what_is_better_on_one_task_and_worse_on_none_enters(loss, said):
    assert f"- The scaling of rsLoRA: significantly {said}" in page(wide_rslora=loss).splitlines()


def test_each_pair_has_a_row():
    rows = [line for line in page(wide=0.4).splitlines() if line.startswith("| wide | lora")]
    assert len(rows) == 1 and rows[0].count("-0.1") == 2 and rows[0].count("▼") == 2


def test_nothing_is_said_while_a_run_is_missing():
    runs = [result(label, seed, 0.4, task=task) for label in sorted(LABELS) for task in TASKS for seed in range(5)]
    side = [run for run in runs if run.label in OWN and (run.label, run.seed) != ("chosen-proportional", 3)]
    text = render_ranks_markdown(side, [run for run in runs if run.label not in OWN])
    assert f"Runs are missing of {', '.join(TASKS)}." in text and "\n- " not in text
