"""Tuning: the validation split alone, a seed that no result uses, and a table of what was tried."""

import shutil

from benchmarks.experiments import resolve
from benchmarks.pages.runs import QUALITY
from benchmarks.tuning import plan_tuning, preferred, render_tuning_markdown, settle_tuning

from weightlora.train.result import read_result


def test_tuning_picks_the_lowest_validation_loss_and_never_sees_the_test_split(root, finish):
    runs = plan_tuning(root, "a", ["lora", "k5"], [1e-4, 1e-3])
    assert {run.experiment["evaluate_on"] for run in runs} == {"validation"}
    assert not {run.seed for run in runs} & set(range(100))
    for run, loss in zip(runs, (0.5, 0.4, 0.3, 0.6), strict=True):
        finish(run, loss=loss)
    assert settle_tuning(root, "a", ["lora", "k5"]) == {"lora": 1e-3, "k5": 1e-4}
    assert resolve(root, "a", "k5")["learning_rate"] == 1e-4
    assert resolve(root, "a", "k5")["keep"] == 5

    table = render_tuning_markdown(root)
    assert "## a: 10 steps" in table or "## a: 20 steps" in table
    assert "| lora | 1 | 0.5000 | 0.4000 | 0.001 |" in table and "| k5 | 1 | 0.3000 | 0.6000 | 0.0001 |" in table


def test_tuning_with_other_settings_does_not_count(root, finish):
    (earlier,) = plan_tuning(root, "a", ["lora"], [4e-3])
    finish(earlier, loss=0.1)
    assert settle_tuning(root, "a", ["lora"]) == {"lora": 4e-3}
    (root / "a" / "lora.json").write_text('{"rank": 4}')
    for run, loss in zip(plan_tuning(root, "a", ["lora"], [1e-4, 1e-3]), (0.5, 0.4), strict=True):
        finish(run, loss=loss)
    assert settle_tuning(root, "a", ["lora"]) == {"lora": 1e-3}, "0.004 was of rank 8"


def test_a_run_that_reads_the_choice_of_another_comes_after_it(root):
    (root / "a" / "alike.json").write_text('{"method": "random-alike", "options": {"like": "runs/k5"}}')
    runs = plan_tuning(root, "a", ["alike", "k5", "lora"], [1e-4, 1e-3])
    assert [run.experiment["label"] for run in runs] == ["k5", "k5", "lora", "lora", "alike", "alike"]


def test_without_tuning_there_is_no_table(root):
    assert render_tuning_markdown(root) == ""


def test_with_several_seeds_the_mean_counts(root, finish):
    runs = plan_tuning(root, "a", ["lora"], [1e-4, 1e-3], seeds=2)
    assert len({run.output for run in runs}) == 4 and sorted({run.seed for run in runs}) == [1000, 1001]
    for run, loss in zip(runs, (0.5, 0.5, 0.2, 0.9), strict=True):
        finish(run, loss=loss)
    assert settle_tuning(root, "a", ["lora"]) == {"lora": 1e-4}, "0.5 against 0.55"
    assert "| lora | 2 | 0.5000 | 0.5500 | 0.0001 |" in render_tuning_markdown(root)


def test_rates_with_more_seeds_than_others_are_seen(root, finish):
    for run in (*plan_tuning(root, "a", ["lora"], [1e-3], seeds=3), *plan_tuning(root, "a", ["lora"], [1e-4])):
        finish(run, loss=0.5)
    assert "| lora | 1 or 3 | 0.5000 | 0.5000 | 0.0001 |" in render_tuning_markdown(root)


def test_side_comparisons_follow_the_main_comparison(root, finish):
    side = root / "a-side"
    shutil.copytree(root / "a", side / "b")
    for run in (*plan_tuning(root, "a", ["lora"], [1e-4]), *plan_tuning(side, "b", ["lora"], [1e-3])):
        finish(run, loss=0.5)
    headings = [line for line in render_tuning_markdown(root).splitlines() if line.startswith("## ")]
    assert [heading.split(":")[0] for heading in headings] == ["## a", "## a-side/b"]


def test_every_method_runs_at_the_rate_that_its_tuning_prefers():
    tuned = {path.parent for path in QUALITY.glob("*/tuning/*/lr-*.json")}
    assert tuned
    for folder in tuned:
        rate = preferred(map(read_result, folder.glob("lr-*.json")))
        assert resolve(QUALITY, folder.parents[1].name, folder.name)["learning_rate"] == rate, folder
