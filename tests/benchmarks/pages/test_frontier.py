"""Loss against step time: points, comparisons, and what the rule says."""

import json
from dataclasses import asdict

import pytest
from benchmarks.pages.frontier import MEAN, SHARES, TASKS, gather_frontier, render_frontier_markdown
from stored import NAMES, result

from weightlora.costs import Costs
from weightlora.errors import DataError

COSTS = Costs("step_time", [5, 4, 3, 2, 1, 0], [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [0.0] * 6, [0.5] * 6, 10.0)
A, B, C = TASKS


@pytest.fixture
def prices(tmp_path) -> str:
    (tmp_path / "prices.json").write_text(json.dumps({"names": NAMES, "costs": asdict(COSTS)}))
    return str(tmp_path / "prices.json")


def run(task: str, label: str, seed: int, loss: float, kept: list[str]):
    return result(label, seed, loss + 0.001 * ((seed + len(label)) % 5), task=task, names=NAMES, kept=kept)


def runs(within: float = 0.5, nearest: float = 0.55) -> tuple[list, list]:
    """The runs within budgets, and those of the main comparison: LoRA at 0.4, and a label that does not belong."""
    losses = {"within": within, "random": 0.6, "nearest": nearest}
    seeds = [(task, seed) for task in TASKS for seed in range(5)]
    side = [
        run(task, f"{way}-{share}", seed, loss, NAMES[-share // 20 :])
        for task, seed in seeds
        for way, loss in losses.items()
        for share in SHARES
    ]
    main = [
        run(task, label, seed, loss, kept)
        for task, seed in seeds
        for label, loss, kept in (
            ("lora", 0.4, NAMES),
            ("peft-default", 0.5, NAMES[1::2]),
            ("widening", 0.5, NAMES[::2]),
            ("probe", 0.45, NAMES[::3]),
            ("gates", 0.1, NAMES),
        )
    ]
    return side, [*main, run("elsewhere", "lora", 0, 0.1, NAMES)]


def test_step_times_follow_from_the_prices_and_losses_from_lora_at_the_same_seed(prices):
    frontier = gather_frontier(*runs(), prices)
    assert [*frontier] == [*TASKS, MEAN]
    assert frontier[A]["lora"].x == pytest.approx(1.0) and frontier[A]["lora"].loss["mean"] == 0
    assert frontier[B]["within-50"].x == pytest.approx((4 + 3 * 0.5) / 10)
    assert frontier[B]["peft-default"].x == pytest.approx((6 + 3 * 0.5) / 10)
    assert frontier[MEAN]["within-50"].loss["mean"] == pytest.approx(0.1, abs=0.005)
    assert "gates" not in frontier[A] and "elsewhere" not in frontier


def test_the_rule_asks_for_better_at_one_budget_and_worse_at_none(prices):
    def said(*losses: float) -> str:
        return render_frontier_markdown(gather_frontier(*runs(*losses), prices))

    good = said(0.5, 0.55)
    words = "**By the rule of the plan, the choice is worth it** at 0.5, 0.6, 0.75 and 0.9 of the step time: it is"
    assert words in good and "▼" in good and "not significant" not in good
    assert "**The modules nearest to the output do better** at 0.5, 0.6, 0.75 and 0.9 of the" in said(0.6, 0.55)
    assert "**The modules nearest to the output do as well** at every budget." in said(0.55, 0.55)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (0.7, "**The modules nearest to the output do better** at 0.9 of the step time."),
        (0.55, "At 0.9 of the step time, the difference is not significant. Against LoRA on all modules, the loss"),
    ],
)
def test_a_budget_at_which_it_is_worse_counts_more_than_the_others_and_one_without_a_difference_is_named(
    loss, words, prices
):
    side, main = runs(0.5, 0.55)
    others = [one for one in side if one.label != "within-90"]
    others += [run(task, "within-90", seed, loss, NAMES) for task in TASKS for seed in range(5)]
    page = render_frontier_markdown(gather_frontier(others, main, prices))
    assert words in page
    assert ("at 0.5, 0.6 and 0.75 of the step time: it is significantly better" in page) == (loss == 0.55)


def test_a_task_with_a_run_missing_is_left_out_and_there_is_no_mean_of_the_others(prices):
    side, main = runs()
    frontier = gather_frontier(side[1:], main, prices)
    assert side[0].task == A and [*frontier] == [B, C]
    page = render_frontier_markdown(frontier)
    assert f"Runs are missing of {A}." in page and "**" not in page and MEAN not in page


def test_prices_must_be_of_the_same_modules(prices):
    side, main = runs()
    other = [*side, result("within-50", 0, task=A, names=["x"], kept=["x"])]
    with pytest.raises(DataError, match="prices of other modules"):
        gather_frontier(other, main, prices)
