import json

import pytest

from weightlora import __version__
from weightlora.bench.experiments import Run, plan, plan_tuning, resolve, settle_tuning
from weightlora.bench.runner import expected_seconds, pending

VERSIONS = {"weightlora": __version__}


@pytest.fixture
def root(tmp_path):
    for task in ("a", "b"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "task.json").write_text(json.dumps({"steps": 10, "seeds": 2}))
        for label in ("lora", "random"):
            (tmp_path / task / f"{label}.json").write_text("{}")
    (tmp_path / "a" / "k5.json").write_text(json.dumps({"method": "weightlora", "keep": 5, "steps": 20}))
    return tmp_path


def finish(run: Run, **changes) -> None:
    run.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"format": 1, "experiment": run.experiment, "seed": run.seed, "loss": 0.5, "versions": VERSIONS} | changes
    run.output.write_text(json.dumps(result))


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
def test_only_a_whole_result_of_the_same_settings_counts(root, spoil):
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


def test_tuning_picks_the_lowest_validation_loss_and_never_sees_the_test_split(root):
    runs = plan_tuning(root, "a", ["lora", "k5"], [1e-4, 1e-3])
    assert {run.experiment["evaluate_on"] for run in runs} == {"validation"}
    assert not {run.seed for run in runs} & set(range(100))
    for run, loss in zip(runs, (0.5, 0.4, 0.3, 0.6), strict=True):
        finish(run, loss=loss)
    assert settle_tuning(root, "a", ["lora", "k5"], runs) == {"lora": 1e-3, "k5": 1e-4}
    assert resolve(root, "a", "k5")["learning_rate"] == 1e-4
    assert resolve(root, "a", "k5")["keep"] == 5


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


def test_tuning_may_be_shorter_than_a_run(root):
    (root / "a" / "task.json").write_text(json.dumps({"steps": 10, "tuning": {"steps": 4, "test_examples": 9}}))
    tuning = plan_tuning(root, "a", ["lora"], [1e-3])[0].experiment
    assert (tuning["steps"], tuning["test_examples"], tuning["evaluate_on"]) == (4, 9, "validation")
    run = plan(root, ["a"], ["lora"], 1)[0].experiment
    assert run["steps"] == 10 and "tuning" not in run
