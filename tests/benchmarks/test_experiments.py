import json

import pytest
from benchmarks.experiments import plan, resolve
from benchmarks.runner import expected_seconds, pending


def test_settings_override_one_another(root):
    experiment = resolve(root, "a", "k5")
    assert (experiment["method"], experiment["label"], experiment["task"]) == ("weightlora", "k5", "a")
    assert (experiment["steps"], experiment["keep"], experiment["rank"]) == (20, 5, 8)
    assert resolve(root, "a", "lora")["steps"] == 10


def test_the_plan_goes_seed_by_seed(root):
    runs = plan(root, None, None, None)
    assert len(runs) == 10
    assert [run.seed for run in runs] == [0] * 5 + [1] * 5
    assert len({run.output for run in runs}) == 10
    assert [run.experiment["label"] for run in plan(root, ["a"], ["k5"], 3)] == ["k5"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("c", "lora"), r"task 'c' is unknown in .*: it has a, b"),
        (("b", "k5"), "method 'k5' is unknown for b: it has lora, random"),
    ],
)
def test_unknown_names_list_the_known_ones(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        resolve(root, *arguments)


def test_a_misspelt_setting_is_refused(root):
    (root / "a" / "k5.json").write_text(json.dumps({"kep": 5}))
    with pytest.raises(ValueError, match=r"'kep' in a/k5.json is no setting: known are .*keep"):
        resolve(root, "a", "k5")


@pytest.mark.parametrize("spoil", ["truncated", "other settings", "other format", "other version", "no file"])
def test_only_a_whole_result_of_the_same_settings_counts(root, finish, spoil):
    run = plan(root, ["a"], ["lora"], 1)[0]
    if spoil != "no file":
        finish(run)
        assert run.is_done()
    if spoil == "truncated":
        run.output.write_text(run.output.read_text()[:-20])
    elif spoil == "other settings":
        finish(run, experiment=run.experiment | {"rank": 4})
    elif spoil == "other format":
        finish(run, format=0)
    elif spoil == "other version":
        finish(run, versions={"weightlora": "0.0.1"})
    assert not run.is_done()
    assert pending([run]) == ([run], int(spoil != "no file"))
    assert not run.output.exists()
    if spoil != "no file":
        assert run.output.with_name("seed-0.json.aside").exists(), "set aside, not deleted"


def test_the_expected_time_is_that_of_runs_alike(root):
    runs = plan(root, ["a"], ["lora", "k5"], 2)
    assert expected_seconds(runs, {}) == 0
    assert expected_seconds(runs, {"a/lora": [10.0, 20.0]}) == 60
    assert expected_seconds(runs, {"a/lora": [10.0], "a/k5": [30.0]}) == 80


def test_the_plan_refuses_unknown_names(root):
    with pytest.raises(ValueError, match=r"task 'c' is unknown in .*: it has a, b"):
        plan(root, ["c"], None, None)
    with pytest.raises(ValueError, match="method 'kappa' is unknown for a: it has k5, lora, random"):
        plan(root, None, ["kappa"], None)
    assert [run.experiment["task"] for run in plan(root, None, ["k5"], 1)] == ["a"], "b has no k5"
