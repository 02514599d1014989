"""What the winner is worth."""

from types import SimpleNamespace

import pytest
from benchmarks.pages import winner
from benchmarks.results import by_seed
from scipy import stats

from weightlora.compare.statistics import paired

SEEDS = {"one": range(3), "two": range(3)}
NOISE = (0.0, 0.01, 0.02)


def run(task: str, label: str, seed: int, loss: float, accuracy: float, kept: str = "ab") -> SimpleNamespace:
    evidence = {"selection_seconds": 2.0 * (seed + 1), "train_seconds": 100.0} if label == "probe" else None
    return SimpleNamespace(
        task=task,
        label=label,
        seed=seed,
        held_out_loss=loss,
        value=accuracy,
        metric="accuracy",
        metric_units={"accuracy": "fraction", "f1": "percent", "perplexity": "none"},
        names=list("abcd"),
        kept=list(kept),
        evidence=evidence,
        settings={},
    )


def stored() -> list[SimpleNamespace]:
    """On the first task the probe beats everything; on the second LoRA is better, and the rest is noise."""
    found = []
    for seed, noise in enumerate(NOISE):
        found += [
            run("one", "probe", seed, 0.4 + noise, 0.80),
            run("two", "probe", seed, 0.5, 0.70, "abc"[seed:] + "d"),
        ]
        found += [run("one", "lora", seed, 0.5, 0.786), run("two", "lora", seed, 0.3, 0.71)]
        found += [run("one", "peft-default", seed, 0.6, 0.7), run("two", "peft-default", seed, 0.49 + noise, 0.7)]
        found += [run("one", "random-like-probe", seed, 0.7, 0.7), run("two", "random-like-probe", seed, 0.6, 0.7)]
    found += [run("one", "lora-equal", seed, 0.7, 0.7) for seed in range(3)]
    found += [run("two", "lora-equal", 0, 0.7, 0.7)]  # the others are missing, so it does not count
    return [*found, run("one", "probe", 3, 9.0, 0.0), run("three", "probe", 0, 9.0, 0.0)]  # they do not count


def render_winner(runs: list[SimpleNamespace], name: str, seeds: dict[str, range]) -> list[str]:
    return winner.render_winner(by_seed(runs), name, seeds)


def test_what_the_runs_show_is_counted():
    said, _ = render_winner(stored(), "probe", SEEDS)
    assert said.splitlines() == [
        "- Against random sets of the same sizes: significantly better on 2 of 2 tasks, worse on 0.",
        "- Against PEFT's default list: significantly better on 1 of 2 tasks, worse on 0.",
        "- Against a lower rank on all modules: significantly better on 1 of 1 tasks, worse on 0.",
        "- Against LoRA on all modules: significantly better on 1 of 2 tasks, worse on 1.",
        "- Metric compared with LoRA on all modules: +0.2 points on average (median +0.2, from -1.0 to +1.4), "
        "at most 0.5 points lower on 1 of 2 tasks.",
        "- Metric minus that of LoRA on all modules where the loss is better: +1.4 points.",
        "- The sets of two seeds overlap by 0.82 on average (Jaccard).",
        "- Choosing takes 4.0% to 4.0% of a run.",
        "- On the model with 4 modules, 6 runs on 2 tasks kept 4 different sets.",
    ]


def test_different_sets_are_counted_for_each_model():
    runs = [run(one.task, one.label, one.seed, one.held_out_loss, one.value) for one in stored()]
    for one in runs:
        one.names = one.names if one.task == "one" else list("abc")
    said = render_winner(runs, "probe", SEEDS)[0].splitlines()
    assert said[-2:] == [
        "- On the model with 4 modules, 3 runs on 1 task kept the same set.",
        "- On the model with 3 modules, 3 runs on 1 task kept the same set.",
    ]


@pytest.mark.parametrize(("accuracy", "close"), [(0.704, 2), (0.706, 1)])
def test_half_a_point_below_lora_is_close(accuracy: float, close: int):
    runs = stored()
    for one in runs:
        if (one.task, one.label) == ("two", "lora"):
            one.value = accuracy
    assert f"at most 0.5 points lower on {close} of 2 tasks." in render_winner(runs, "probe", SEEDS)[0]


@pytest.mark.parametrize(("metric", "shown", "tasks"), [("perplexity", "", 1), ("f1", "-1.00", 2)])
def test_only_metrics_that_are_parts_of_a_whole_have_points(metric: str, shown: str, tasks: int):
    """A difference of perplexities was called points, and a higher perplexity the better one."""
    runs = stored()
    for one in runs:
        if one.task == "two":
            one.metric, one.value = metric, 100 * one.value
    said, table = render_winner(runs, "probe", SEEDS)
    assert f" of {tasks} tasks." in said.splitlines()[4] and "Metric compared" in said
    assert table.splitlines()[3].split(" | ")[5] == shown
    for one in runs:
        one.metric = "perplexity"
    assert "Metric compared" not in render_winner(runs, "probe", SEEDS)[0]


def test_each_task_has_a_row():
    first, second = [line.split(" | ") for line in render_winner(stored(), "probe", SEEDS)[1].splitlines()[2:]]
    assert first[0] == "| one" and first[1].startswith("-0.2900") and first[5:] == ["+1.40", "1.00", "4.0% |"]
    assert (
        second[0] == "| two"
        and second[3] == ""
        and second[4].endswith("▲")
        and second[5:] == ["-1.00", "0.64", "4.0% |"]
    )


def test_a_rule_without_a_probe_says_nothing_of_its_cost():
    runs = [run(one.task, one.label, one.seed, one.held_out_loss, one.value) for one in stored()]
    for one in runs:
        one.evidence, one.label = None, {"probe": "weightlora"}.get(one.label, one.label)
    said, table = render_winner(runs, "weightlora", SEEDS)
    assert "Choosing takes" not in said and "random" not in said
    assert "random" not in table and table.splitlines()[2].endswith("| 1.00 |  |")


def test_several_comparisons_stand_side_by_side():
    """The rows are those of any of them: the second has no random sets, and one task."""
    worth = winner.weigh(by_seed(stored()), "probe", SEEDS)
    less = [one for one in stored() if one.label != "random-like-probe" and one.task == "one"]
    table = winner.render_worths({"A": worth, "B": winner.weigh(by_seed(less), "probe", {"one": range(3)})})
    lines = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [line[0] for line in lines] == [
        "| Against random sets of the same sizes",
        "| Against PEFT's default list",
        "| Against a lower rank on all modules",
        "| Against LoRA on all modules",
        "| Metric compared with LoRA on all modules",
        "| Metric at most 0.5 points lower",
    ]
    assert lines[0][1:] == ["better on 2 of 2 tasks, worse on 0", " |"]
    assert lines[3][1:] == ["better on 1 of 2 tasks, worse on 1", "better on 1 of 1 tasks, worse on 0 |"]
    assert lines[4][1:] == [
        "median +0.2 points, mean +0.2",
        "median +1.4 points, mean +1.4 |",
    ]
    assert lines[5][1:] == ["1 of 2 tasks", "1 of 1 tasks |"]


def test_a_comparison_without_points_has_no_row_of_the_metric():
    runs = stored()
    for one in runs:
        one.metric = "perplexity"
    table = winner.render_worths({"A": winner.weigh(by_seed(runs), "probe", SEEDS)})
    assert "Metric" not in table and table.count("\n| Against") == 4


def test_holms_correction_asks_more_of_each_comparison_until_one_is_not_significant():
    """The p-values are those of paired t-tests, and the smallest of n is compared with 0.05 / n."""
    seeds = {task: range(5) for task in "abcd"}
    noise = [0.0, 0.01, -0.01, 0.02, -0.02]
    shifts = {"a": -0.05, "b": 0.04, "c": -0.0225, "d": -0.001}
    losses = {task: {seed: 0.5 + shift + noise[seed] for seed in range(5)} for task, shift in shifts.items()}
    reference = dict.fromkeys(range(5), 0.5)
    p_values = {task: stats.ttest_rel([*own.values()], [*reference.values()]).pvalue for task, own in losses.items()}
    found = {task: paired(own, reference) for task, own in losses.items()}
    assert p_values["a"] < 0.05 / 4 and p_values["b"] < 0.05 / 3 and 0.05 / 2 < p_values["c"] < 0.05
    assert winner.corrected(found, seeds) == (1, 1)
    assert winner.corrected({"c": found["c"], "d": None}, seeds) == (1, 0), "alone, it needs no correction"
    assert winner.corrected({}, seeds) == (0, 0)
    equal = {"a": {"mean": -0.1, "ci": 0.0}, "b": {"mean": 0.0, "ci": 0.0}, "c": found["c"]}
    assert winner.corrected(equal, seeds) == (1, 0), "an equal difference is significant, and counts as a comparison"


def test_corrected_counts_stand_beside_the_others():
    worth = winner.weigh(by_seed(stored()), "probe", SEEDS)
    text = winner.render_corrected({"here": worth, "none": worth._replace(versus={})})
    assert text.splitlines()[0] == "| reference | here | corrected | none | corrected |"
    assert "| PEFT's default list | 1, 0 | " in text and text.splitlines()[2].endswith("|  |  |")


def test_a_difference_that_rounds_to_0_has_no_minus():
    assert [winner.signed(points) for points in (-0.04, 0.04, -0.06, 1.25)] == ["+0.0", "+0.0", "-0.1", "+1.2"]
