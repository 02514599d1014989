import json

import pytest
from benchmarks.experiments import DEFAULTS, labels_in, plan, resolve, tasks_in
from benchmarks.pages.runs import QUALITY
from stored import VERSIONS, result

from weightlora.errors import ConfigError
from weightlora.train.result import write_result


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


def test_seeds_may_begin_later_and_are_no_setting_of_a_run(root):
    (root / "b" / "task.json").write_text(json.dumps({"first_seed": 5, "seeds": 2}))
    later = plan(root, ["b"], ["lora"], None)
    assert [run.seed for run in later] == [5, 6] and [run.output.stem for run in later] == ["seed-5", "seed-6"]
    assert [run.seed for run in plan(root, ["b"], ["lora"], 3)] == [5, 6, 7]
    assert not {"first_seed", "seeds"} & later[0].experiment.keys(), "stored results have no such settings"


def test_a_run_that_reads_what_another_chose_comes_a_seed_later(root):
    (root / "a" / "alike.json").write_text(json.dumps({"method": "random-alike", "options": {"like": "results/lora"}}))
    runs = plan(root, ["a"], ["lora", "alike"], 3)
    order = [(run.experiment["label"], run.seed) for run in runs]
    assert [order.index(("alike", seed)) > order.index(("lora", seed)) + 1 for seed in (0, 1)] == [True, True]
    assert order[-1] == ("alike", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("c", "lora"), r"task 'c' is unknown in .*: it has a, b"),
        (("b", "k5"), "method 'k5' is unknown for b: choose one of lora, random"),
    ],
)
def test_unknown_names_list_the_known_ones(root, arguments, message):
    with pytest.raises(ConfigError, match=message):
        resolve(root, *arguments)


def test_a_misspelt_setting_is_refused(root):
    (root / "a" / "k5.json").write_text(json.dumps({"kep": 5}))
    with pytest.raises(ConfigError, match=r"a/k5.json has the unknown setting 'kep': choose one of .*keep"):
        resolve(root, "a", "k5")


def test_a_task_may_name_its_workload_and_a_method_may_not(root):
    assert "workload" not in resolve(root, "a", "lora"), "stored results have no such setting"
    (root / "a" / "task.json").write_text(json.dumps({"workload": "b", "steps": 10}))
    assert resolve(root, "a", "lora")["workload"] == "b" and resolve(root, "a", "lora")["task"] == "a"
    (root / "a" / "k5.json").write_text(json.dumps({"workload": "c"}))
    with pytest.raises(ConfigError, match=r"a/k5.json has the workload 'c', .*: name it in a/task.json"):
        resolve(root, "a", "k5")


def test_a_task_may_take_the_rates_that_another_task_was_tuned_to(root):
    (root / "a" / "task.json").write_text(json.dumps({"rates_from": "b", "steps": 10}))
    (root / "b" / "lora.json").write_text(json.dumps({"learning_rate": 0.004}))
    experiment = resolve(root, "a", "lora")
    assert experiment["learning_rate"] == 0.004 and "rates_from" not in experiment
    (root / "b" / "lora.json").write_text("{}")
    assert resolve(root, "a", "lora")["learning_rate"] == DEFAULTS["learning_rate"], "not tuned yet"
    (root / "a" / "lora.json").write_text(json.dumps({"learning_rate": 0.001}))
    with pytest.raises(ConfigError, match=r"a/lora.json has learning_rate=0.001, .* from b: drop one of the two"):
        resolve(root, "a", "lora")


@pytest.mark.parametrize("spoil", ["truncated", "other settings", "other format", "other version", "no file"])
def test_only_a_whole_result_of_the_same_settings_counts(root, finish, spoil):
    run = plan(root, ["a"], ["lora"], 1)[0]
    if spoil != "no file":
        finish(run)
        assert run.is_done()
    if spoil == "truncated":
        run.output.write_text(run.output.read_text()[:-20])
    elif spoil == "other settings":
        finish(run, settings=run.experiment | {"rank": 4})
    elif spoil == "other format":
        run.output.write_text(run.output.read_text().replace('"format": 2', '"format": 1'))
    elif spoil == "other version":
        finish(run, versions={**VERSIONS, "weightlora": "0.0.1"})
    assert not run.is_done()
    assert run.set_aside() is (spoil != "no file")
    assert not run.output.exists()
    if spoil != "no file":
        assert run.output.with_name("seed-0.json.aside").exists(), "set aside, not deleted"


@pytest.mark.parametrize(("chosen", "counts"), [("ab", True), ("bc", True), ("a", False), ("ad", False)])
def test_random_sets_count_while_they_have_the_sizes_of_what_they_were_drawn_like(root, chosen, counts):
    like = root / "a" / "results" / "lora"
    (root / "a" / "alike.json").write_text(json.dumps({"method": "random-alike", "options": {"like": str(like)}}))
    run = plan(root, ["a"], ["alike"], 1)[0]
    drawn = {"names": [*"abcd"], "sizes": [4, 4, 4, 9], "kept": ["a", "c"]}
    stored = result("alike", method="random-alike", task="a", settings=run.experiment, **drawn)
    write_result(run.output, stored)
    assert run.is_done(), "nothing is stored of what it was drawn like"
    write_result(like / "seed-0.json", result("lora", kept=[*chosen]))
    assert run.is_done() is counts and run.set_aside() is not counts


def test_the_plan_refuses_unknown_names(root):
    with pytest.raises(ConfigError, match=r"task 'c' is unknown in .*: it has a, b"):
        plan(root, ["c"], None, None)
    with pytest.raises(ConfigError, match="method 'kappa' is unknown for a: choose one of k5, lora, random"):
        plan(root, None, ["kappa"], None)
    assert [run.experiment["task"] for run in plan(root, None, ["k5"], 1)] == ["a"], "b has no k5"


def test_chance_after_the_selection_phase_differs_from_the_default_in_the_choice_alone():
    for task in (name for name in tasks_in(QUALITY) if "random-late" in labels_in(QUALITY, name)):
        late, default = (resolve(QUALITY, task, label) for label in ("random-late", "weightlora"))
        assert late.pop("options") == {"selection": "random"} and default.pop("options") == {}
        assert {**late, "label": None, "seeds": None} == {**default, "label": None, "seeds": None}, task
