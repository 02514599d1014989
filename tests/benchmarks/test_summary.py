"""The summary of stored results, as files."""

import json

import pytest
from benchmarks.experiments import SEEDS, plan, resolve
from benchmarks.summary import extend_, read_summary, write_summary
from benchmarks.tables import render_markdown
from stored import result, store

from weightlora.errors import DataError


def runs(label, losses, **changes):
    return [result(label, seed, loss, **changes) for seed, loss in enumerate(losses)]


def settings_of(root, label):
    """The settings of a run of task a, as they are stored."""
    return {key: value for key, value in resolve(root, "a", label).items() if key not in SEEDS}


def test_a_side_comparison_is_compared_with_the_main_runs_of_what_it_varies_and_of_the_references(tmp_path):
    store(tmp_path, result("plus-2", method="plus"))
    store(tmp_path, result("lora", loss=0.7))
    main = [result(method, task=task) for method in ("random", "lora", "plus", "top") for task in ("tiny", "other")]
    tasks = read_summary(tmp_path, main=main)[1]["tasks"]
    assert {task: sorted(methods) for task, methods in tasks.items()} == {"tiny": ["lora", "plus", "plus-2", "random"]}
    assert tasks["tiny"]["lora"]["loss"]["mean"] == 0.7, "its own run, not the main comparison's"


def test_a_side_comparison_at_other_seeds_has_no_runs_of_the_main_comparison(tmp_path):
    store(tmp_path, result("plus-2", 5, method="plus"))
    main = [*runs("random", [0.5, 0.6]), result("lora"), result("lora", 5)]
    tasks = read_summary(tmp_path, main=main)[1]["tasks"]
    assert {label: row["seeds"] for label, row in tasks["tiny"].items()} == {"plus-2": 1, "lora": 2}


def test_the_summary_is_written_whole(tmp_path):
    for content in (*runs("a", [0.4, 0.5]), *runs("random", [0.6, 0.7]), result("a", task="other")):
        store(tmp_path / "in", content)
    out = tmp_path / "new" / "out"
    write_summary(tmp_path / "in", out)
    assert sorted(path.name for path in out.iterdir()) == ["summary.json", "summary.md"]
    results, summary, remarks = read_summary(tmp_path / "in")
    assert (out / "summary.md").read_text("utf-8") == render_markdown(summary, remarks) and remarks == []
    extend_(summary, results)
    assert json.loads((out / "summary.json").read_text("utf-8")) == summary


def test_the_extended_summary_has_pefts_default_the_cost_of_a_probe_and_the_list_trained_anew(tmp_path):
    cost = {"selection_seconds": 2.0, "train_seconds": 100.0}
    for content in (
        *runs("peft-default", [0.5, 0.6]),
        *runs("credit", [0.6, 0.8]),
        *runs("credit-anew", [0.4, 0.5]),
        *(result("probe", seed, 0.3, evidence=cost) for seed in range(2)),
    ):
        store(tmp_path, content)
    plain = read_summary(tmp_path)[1]["tasks"]["tiny"]
    results, summary, _ = read_summary(tmp_path)
    extend_(summary, results)
    rows = summary["tasks"]["tiny"]
    assert rows["peft-default"]["vs_peft_default"] is None
    assert rows["credit"]["vs_peft_default"]["mean"] == pytest.approx(0.15)
    assert rows["credit"]["vs_peft_default"]["wins"] == 0
    assert rows["credit"]["list_anew"]["loss"]["mean"] == pytest.approx(0.45)
    assert rows["credit"]["list_anew"]["vs_peft_default"]["mean"] == pytest.approx(-0.1)
    assert rows["credit"]["cost"] is None and rows["credit-anew"]["list_anew"] is None
    assert rows["probe"]["cost"] == {"selection_seconds": 2.0, "share_of_run": pytest.approx(0.02)}
    assert rows["probe"]["list_anew"]["loss"] == rows["probe"]["loss"], "it chooses before training: both are one run"
    for label, row in plain.items():
        assert {key: rows[label][key] for key in row} == row
    json.dumps(rows, allow_nan=False)


def test_stored_runs_of_another_plan_are_named(root, finish):
    like = str(root / "a" / "results" / "k5")
    (root / "a" / "alike.json").write_text(json.dumps({"method": "random-alike", "options": {"like": like}}))
    for run in plan(root, ["a"], ["lora"], 2):
        finish(run)
    drawn = {"names": ["x", "y"], "sizes": [4, 4]}
    for seed in range(2):
        store(
            root,
            result(
                "alike",
                seed,
                method="random-alike",
                task="a",
                settings=settings_of(root, "alike"),
                kept=["x"],
                **drawn,
            ),
        )
        store(root, result("k5", seed, method="weightlora", task="a", settings=settings_of(root, "k5"), kept=["y"]))
    assert not [line for line in read_summary(root)[2] if "run it again" in line]

    (root / "a" / "lora.json").write_text(json.dumps({"rank": 4, "learning_rate": 0.002}))
    store(root, result("k5", 1, method="weightlora", task="a", settings=settings_of(root, "k5"), kept=["x", "y"]))
    said = read_summary(root)[2]
    assert [line for line in said if "run it again" in line] == [
        "a: alike has sets of other sizes than what its `like` keeps now (seed 1): run it again.",
        "a: lora ran with other settings than lora.json has now (learning_rate, rank): run it again.",
    ]


def test_no_results_is_an_error_that_tells_what_was_set_aside(tmp_path):
    store(tmp_path, result("b", 1)).write_text("{")
    with pytest.raises(DataError, match=r"no results in .*\n.*seed-1\.json: .* is not JSON"):
        write_summary(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
