"""A comparison from arguments: its runs, what it refuses, and that a directory has one comparison."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from weightlora.compare.comparison import read_comparison
from weightlora.compare.spec import make_comparison
from weightlora.errors import ConfigError, DataError


def make(directory, arguments, methods=("lora", "weightlora"), seeds=2, rates=None):
    return make_comparison(Path(directory), methods, seeds, rates, arguments)


def plans_of(comparison):
    return {method: job.plan for method, job in comparison.jobs()}


def test_one_rate_is_not_tuned(tmp_path, films):
    assert make(tmp_path, [*films, "--learning_rate", "1e-4"]).rates == {"lora": (1e-4,), "weightlora": (1e-4,)}
    comparison = make(tmp_path, films, rates=[3e-4])
    assert not comparison.tunes and comparison.tuning_runs() == []


def test_a_recipe_may_have_a_rate_per_method(tmp_path, films):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 1.0e-3\ntask: cola\nby_method:\n  weightlora:\n    learning_rate: 2.0e-3\n")
    comparison = make(tmp_path, [*films, "--config", str(recipe)])
    assert comparison.rates == {"lora": (1e-3,), "weightlora": (2e-3,)} and comparison.task == "cola"


def test_the_choice_and_chance_have_one_budget(tmp_path, films):
    plans = plans_of(make(tmp_path, films, ["lora", "weightlora", "random"]))
    (before, all_of_it), (_, chosen), (_, by_chance) = (plan.trainable for plan in plans.values())
    assert before == all_of_it > chosen == by_chance
    assert {name: plan.keep for name, plan in plans.items()} == {"lora": None, "weightlora": None, "random": None}


@pytest.mark.parametrize(
    ("name", "budget"), [("keep_parameters", "0.3"), ("keep_step_time", "0.5"), ("keep_memory", "1GiB")]
)
def test_a_budget_bounds_the_methods_that_choose(tmp_path, films, name, budget):
    comparison = make(tmp_path, [*films, f"--{name}", budget], ["lora", "full", "random", "weightlora"])
    plans = plans_of(comparison)
    assert [name in comparison.settings[method] for method in comparison.methods] == [False, False, True, True]
    assert plans["random"].trainable == plans["weightlora"].trainable and plans["lora"].keep is None
    assert comparison.shared[name] is not None, "another budget is another comparison"
    comparison.claim()
    with pytest.raises(DataError, match="which differs in keep_"):
        make(tmp_path, films, ["weightlora-plus"]).claim()


def test_a_method_that_trains_all_is_added_to_a_comparison_with_a_budget(tmp_path, films):
    arguments = [*films, "--keep_parameters", "0.3"]
    make(tmp_path / "out", arguments, ["lora", "weightlora"]).claim()
    added = make(tmp_path / "out", arguments, ["dora"])
    assert "keep_parameters" not in added.settings["dora"] and plans_of(added)["dora"].keep is None
    added.claim()
    assert read_comparison(tmp_path / "out").methods == ["lora", "weightlora", "dora"]


def test_a_budget_comes_with_the_first_method_that_it_bounds_and_stays(tmp_path, films):
    make(tmp_path / "out", films, ["lora"]).claim()
    make(tmp_path / "out", [*films, "--keep_parameters", "0.3"], ["weightlora"]).claim()
    make(tmp_path / "out", films, ["dora"]).claim()
    assert read_comparison(tmp_path / "out").shared["keep_parameters"] == "0.3"
    for budget in ([], ["--keep_parameters", "0.4"]):
        for methods in (["random"], ["lora", "random"]):
            with pytest.raises(DataError, match="which differs in keep_parameters: give"):
                make(tmp_path / "out", [*films, *budget], methods).claim()
    make(tmp_path / "out", [*films, "--keep_parameters", "0.3"], ["random"]).claim()
    assert read_comparison(tmp_path / "out").methods == ["lora", "weightlora", "dora", "random"]


def test_a_lower_rank_and_the_default_list_of_peft_have_the_parameters_of_the_choice(tmp_path, films):
    methods = ["lora", "lora-equal", "peft-default", "weightlora"]
    plans = plans_of(make(tmp_path, [*films, "--rank", "32", "--keep_parameters", "0.5"], methods))
    everything, lower, listed, chosen = (plan.trainable[1] for plan in plans.values())
    assert lower == pytest.approx(chosen, rel=0.05) and listed == pytest.approx(chosen, rel=0.05)
    assert chosen < 0.6 * everything


def test_a_list_is_the_setting_of_its_method_and_added_like_one(tmp_path, films):
    make(tmp_path / "out", films, ["lora", "weightlora"]).claim()
    with_list = [*films, "--listed", "query_proj", "value_proj"]
    added = make(tmp_path / "out", with_list, ["lora", "listed"])
    plans = plans_of(added)
    assert plans["listed"].trainable[1] < plans["lora"].trainable[1] and "listed" not in added.settings["lora"]
    added.claim()
    assert read_comparison(tmp_path / "out").settings["listed"]["listed"] == ["query_proj", "value_proj"]
    with pytest.raises(DataError, match="which differs in listed: give"):
        make(tmp_path / "out", [*films, "--listed", "query_proj"], ["listed"]).claim()
    with pytest.raises(ConfigError, match="--listed is the list of the method listed: add it to --methods"):
        make(tmp_path / "out", with_list, ["lora"])
    with pytest.raises(ConfigError, match="method=listed needs a list: give --listed"):
        plans_of(make(tmp_path / "new", films, ["listed"]))


@pytest.mark.parametrize("methods", [["lora", "top", "weightlora"], ["lora", "dora"]])
def test_a_budget_that_a_method_cannot_keep_is_refused(tmp_path, films, methods):
    comparison = make(tmp_path, [*films, "--keep_parameters", "0.3"], methods)
    with pytest.raises(ConfigError, match=r"keep_parameters=0\.3 bounds a choice, and"):
        plans_of(comparison)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["lorra"]}, "method='lorra' is not known: the nearest is lora"),
        ({"methods": ["zzz"]}, "method='zzz' is not known: choose one of 'lora', "),
        ({"methods": ["adalora"]}, "method=adalora is in the benchmarks of the repository"),
        ({"methods": []}, "--methods is empty"),
        ({"seeds": 0}, "seeds=0 is too small: give at least 1"),
        ({"rates": [1e-3, 0.0]}, "the learning rate 0 is not a positive number"),
        ({"rates": []}, "--learning_rates is empty: give at least one"),
        ({"rates": [1e-3, 1.0000001e-3]}, r"the learning rates 0\.001 and 0\.0010000001 are nearly equal: leave one"),
        ({"rates": [float("nan")]}, "the learning rate nan is not a positive number"),
        ({"arguments": ["--method", "dora"]}, "--method is set by the comparison itself: give --methods"),
        ({"arguments": ["--method=dora"]}, "--method is set by the comparison itself: give --methods"),
        ({"arguments": ["--seed", "3"]}, "--seed is set by the comparison itself: give --seeds"),
        (
            {"arguments": ["--load_best_model_at_end", "--eval_strategy", "steps"]},
            "--load_best_model_at_end needs checkpoints, and a comparison keeps none: leave it out",
        ),
        (
            {"arguments": ["--modules_from", "run"]},
            "--modules_from gives its modules to the method lora, .*: give them by --listed and --methods listed",
        ),
        ({"arguments": ["--stepz", "3"]}, "--stepz is not an argument"),
        ({"arguments": ["--train_file", "nowhere.jsonl"]}, "nowhere.jsonl is not a file"),
    ],
)
def test_bad_input_is_refused(tmp_path, films, changes, message):
    arguments = [*films, *changes.pop("arguments", [])]
    with pytest.raises((ConfigError, DataError), match=message):
        make(tmp_path, arguments, **changes)


def test_a_rate_is_given_once(tmp_path, films):
    with pytest.raises(ConfigError, match="--learning_rate and --learning_rates are both given"):
        make(tmp_path, [*films, "--learning_rate", "1e-3"], rates=[1e-3])


def test_changed_data_is_another_comparison(tmp_path, place):
    data = tmp_path / "films.jsonl"
    data.write_text((place / "films.jsonl").read_text())
    arguments = ["--model", str(place / "deberta"), "--train_file", str(data)]
    make(tmp_path / "out", arguments).claim()
    from weightlora.compare.runs import fingerprint

    data.write_text(data.read_text() + '{"text": "one more", "label": "pos"}\n')
    fingerprint.cache_clear()
    with pytest.raises(DataError, match="differs in train_file"):
        make(tmp_path / "out", arguments).claim()


def test_a_changed_model_is_another_comparison(tmp_path, place):
    model = shutil.copytree(place / "deberta", tmp_path / "model")
    arguments = ["--model", str(model), "--train_file", str(place / "films.jsonl")]
    make(tmp_path / "out", arguments).claim()
    make(tmp_path / "out", arguments).claim()
    from weightlora.compare.runs import fingerprint

    weights = load_file(model / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, model / "model.safetensors", {"format": "pt"})
    fingerprint.cache_clear()
    with pytest.raises(DataError, match=r"differs in model/model\.safetensors: give another"):
        make(tmp_path / "out", arguments).claim()


@pytest.mark.parametrize("name", ["chat_template.jinja", "merges.txt", "model.gguf"])
def test_a_changed_file_that_the_model_or_its_tokenizer_reads_is_another_comparison(tmp_path, place, name):
    model = shutil.copytree(place / "deberta", tmp_path / "model")
    arguments = ["--model", str(model), "--train_file", str(place / "films.jsonl")]
    arguments += ["--gguf_file", name] if name.endswith("gguf") else []
    (model / name).write_text("one")
    make(tmp_path / "out", arguments).claim()
    make(tmp_path / "out", arguments).claim()
    from weightlora.compare.runs import fingerprint

    (model / name).write_text("two")
    fingerprint.cache_clear()
    with pytest.raises(
        DataError, match=f"differs in {'gguf_file' if name.endswith('gguf') else f'model/{name}'}: give"
    ):
        make(tmp_path / "out", arguments).claim()


def test_changed_files_in_a_directory_are_another_comparison(tmp_path, place):
    (data := tmp_path / "films" / "train.jsonl").parent.mkdir()
    data.write_text((place / "films.jsonl").read_text())
    arguments = ["--model", str(place / "deberta"), "--dataset", str(data.parent)]
    make(tmp_path / "out", arguments).claim()
    make(tmp_path / "out", arguments).claim()
    from weightlora.compare.runs import fingerprint

    data.write_text(data.read_text() + '{"text": "one more", "label": "pos"}\n')
    fingerprint.cache_clear()
    with pytest.raises(DataError, match=r"differs in train\.jsonl: give"):
        make(tmp_path / "out", arguments).claim()
    (data.parent / "validation.jsonl").write_text(data.read_text())
    with pytest.raises(DataError, match=r"differs in train\.jsonl, validation\.jsonl"):
        make(tmp_path / "out", arguments).claim()


def test_a_directory_with_other_files_is_refused(tmp_path, films):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty and has no settings\.json"):
        make(tmp_path, films).claim()
    with pytest.raises(DataError, match="has no comparison"):
        read_comparison(tmp_path)
