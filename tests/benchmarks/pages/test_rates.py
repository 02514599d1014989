"""The same learning rate for all: what is compared, and what is said."""

from benchmarks.pages.rates import LABELS, TASKS, render_rates_markdown
from stored import result

MAIN = {"probe": 0.001, "random-like-probe": 0.002, "peft-default": 0.002, "lora": 0.001}


def runs(**losses: tuple[float, float]) -> tuple[list, list]:
    """Runs of the diagnosis and of the main comparison, from losses at 0.001 and 0.002 by method (with _ for -)."""
    made: dict[bool, list] = {True: [], False: []}
    for method, both in ((name.replace("_", "-"), both) for name, both in losses.items()):
        for rate, loss in zip((0.001, 0.002), both, strict=True):
            in_main = MAIN[method] == rate
            label = method if in_main else f"{method}-{rate * 1000:.0f}e-3"
            made[in_main] += [
                result(
                    label, seed, loss + 0.001 * ((seed + len(method)) % 5), task=task, settings={"learning_rate": rate}
                )
                for task in TASKS
                for seed in range(5)
            ]
    return made[False], made[True]


EXAMPLE = runs(probe=(0.4, 0.45), random_like_probe=(0.5, 0.46), peft_default=(0.4, 0.6), lora=(0.3, 0.5))


def test_each_comparison_is_counted():
    assert [line for line in render_rates_markdown(*EXAMPLE).splitlines() if line.startswith("- ")] == [
        f"- Against {LABELS[method]}, {which}: significantly better on {better} of 6 tasks, worse on {worse}."
        for method, *of_method in (
            ("random-like-probe", (6, 0), (6, 0), (6, 0)),
            ("peft-default", (0, 0), (6, 0), (0, 0)),
            ("lora", (0, 6), (6, 0), (0, 6)),
        )
        for which, (better, worse) in zip(
            ("both at 0.001", "both at 0.002", "each at the better of the two"), of_method, strict=True
        )
    ]


def test_the_tables_have_losses_at_both_rates_and_differences():
    lines = render_rates_markdown(*EXAMPLE).splitlines()
    (losses,) = (line for line in lines if line.startswith("| spam |"))
    assert [cell.split(" ± ")[0].strip() for cell in losses.split("|")[2:-1]] == [
        "0.4020", "0.4520", "0.5020", "0.4620", "0.4020", "0.6020", "0.3020", "0.5020",
    ]  # fmt: skip
    (better,) = (line for line in lines if line.startswith("| random sets of the same sizes | each at the better"))
    assert better.count("-0.06") == len(TASKS) == better.count("▼")


def test_a_task_without_all_runs_is_left_out_and_named():
    side, main = EXAMPLE
    text = render_rates_markdown(side[1:], main)
    assert f"Runs are missing of {side[0].task}." in text and f"| {side[0].task} |" not in text
    assert "of 5 tasks" in text
