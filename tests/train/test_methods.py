from pathlib import Path

import pytest
import torch
from models import BERT_TARGETS, lora_mixtral, tiny_bert
from recipes import arguments

from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError
from weightlora.train import fit, parse, prepare
from weightlora.train.methods import (
    CONFIG_OPTIONS,
    LORA_OPTIONS,
    METHODS,
    Prepared,
    Setting,
    equal_rank,
    last_layers,
    sizes_of,
)


def make(method: str, keep: int = 3, **more: object) -> Prepared:
    """A small BERT with 6 adapters of rank 4 in each of 2 layers, as a method prepares it."""
    return METHODS[method].prepare(setting_with(keep, **more))


def setting_with(keep: int, **more: object) -> Setting:
    target = {"target_modules": BERT_TARGETS, "task_type": "SEQ_CLS"}
    shared = {
        "model": tiny_bert(),
        "target": target,
        "rank": 4,
        "alpha": 8,
        "dropout": 0.0,
        "select_steps": 2,
        "steps": 8,
        "seed": 5,
    }
    return Setting(keep=keep, batches=list, **(shared | more))


def names(prepared: Prepared) -> list[str]:
    return [adapter.name for adapter in find_adapters(prepared.model)]


def test_modules_to_train_in_full_of_the_run_and_of_the_options():
    """PEFT adds the head to the list that it gets, so each model needs its own."""
    target = {"target_modules": BERT_TARGETS, "task_type": "SEQ_CLS", "modules_to_save": ["bert.pooler.dense"]}
    setting = setting_with(3, target=target, options={"modules_to_save": ["word_embeddings"]})
    assert len(sizes_of(setting)) == 12
    trained = {
        n for n, p in METHODS["lora"].prepare(setting).model.named_parameters() if p.requires_grad and "lora_" not in n
    }
    assert {n.split(".modules_to_save")[0].rpartition(".")[2] for n in trained} == {
        "dense",
        "word_embeddings",
        "classifier",
    }
    assert target["modules_to_save"] == ["bert.pooler.dense"]


def test_patterns_that_peft_sets_for_experts_give_no_warning(recwarn: pytest.WarningsRecorder):
    """PEFT says that it ignores them, and does not."""
    target = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    adapters = find_adapters(
        METHODS["lora"].prepare(setting_with(3, model=lora_mixtral().unload(), target=target)).model
    )
    assert {adapter.rank for adapter in adapters if "gate_up_proj" in adapter.name} == {8}, "twice the rank of others"
    assert not [warning for warning in recwarn if "_pattern keys" in str(warning.message)]


def test_a_pattern_that_fits_no_module_gives_the_warning_of_peft():
    with pytest.warns(RuntimeWarning, match="rank_pattern keys did not match"):
        METHODS["lora"].prepare(setting_with(3, options={"rank_pattern": {"quary": 2}}))


def test_equal_rank_has_the_parameters_of_k_adapters():
    setting = setting_with(3)
    assert len(sizes_of(setting)) == 12 and not any("lora" in name for name, _ in setting.model.named_modules())
    sizes = sizes_of(setting)
    assert [equal_rank(setting_with(keep), sizes, sizes) for keep in (1, 3, 5, 12)] == [1, 1, 2, 4]
    adapters = find_adapters(make("lora-equal", 6).model)
    assert len(adapters) == 12 and {(adapter.rank, adapter.scaling) for adapter in adapters} == {(2, 2.0)}


@pytest.mark.parametrize(("budget", "rank"), [(0.5, 2), (0.7, 3), (1.0, 4), (10**9, 4), (1, 1)])
def test_a_budget_of_parameters_sets_the_rank(budget: int | float, rank: int):
    adapters = find_adapters(make("lora-equal", options={"keep_parameters": budget}).model)
    assert len(adapters) == 12 and {(adapter.rank, adapter.scaling) for adapter in adapters} == {(rank, 2.0)}


def test_the_default_list_of_peft_has_the_parameters_of_a_choice():
    everything = make("lora")
    total = sum(adapter.size for adapter in find_adapters(everything.model))
    listed = [name for name in names(everything) if name.endswith(("query", "value"))]
    for more, goal in (({"options": {"keep_parameters": 0.5}}, total // 2), ({}, total // 4)):
        prepared = make("peft-default", 3, **more)
        adapters = find_adapters(prepared.model)
        (rank,) = {adapter.rank for adapter in adapters}
        per_rank = sum(adapter.size for adapter in adapters) / rank
        assert names(prepared) == listed == [name for name in prepared.candidates if name in listed]
        assert abs(rank * per_rank - goal) <= per_rank / 2 and len(prepared.candidates) == 12
        assert {adapter.scaling for adapter in adapters} == {2.0}, "alpha / r is the setting's"


def test_a_list_of_names_has_the_parameters_of_a_choice():
    prepared = make("listed", 6, options={"listed": ["query", "layer.1.output.dense"]})
    everything = find_adapters(make("lora").model)
    adapters = find_adapters(prepared.model)
    (rank,) = {adapter.rank for adapter in adapters}
    assert [adapter.name.rpartition(".")[2] for adapter in adapters].count("query") == len(adapters) - 1 == 2
    per_rank = sum(adapter.size for adapter in adapters) / rank
    assert abs(rank * per_rank - sum(adapter.size for adapter in everything) / 2) <= per_rank / 2


def test_top_keeps_the_adapters_nearest_the_output():
    everything = names(make("lora"))
    prepared = make("top", 3)
    assert names(prepared) == everything[-3:] and list(prepared.candidates) == everything


@pytest.mark.parametrize(("keep", "kept"), [(1, 6), (6, 6), (11, 6), (12, 12)])
def test_last_layers_are_whole(keep: int, kept: int):
    assert names(last_layers(setting_with(keep))) == names(make("lora"))[-kept:]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("random", {"selection": "random", "select_steps": 0, "keep": 3, "seed": 5}),
        ("weightlora", {"selection": "credit", "select_steps": 2, "keep": 3, "seed": 5, "expand": "none"}),
        ("weightlora-plus", {"selection": "credit", "expand": "qr"}),
        ("weightlora-paper", {"selection": "stoiht", "select_steps": 2, "keep": 3}),
    ],
)
def test_methods_that_select_have_a_callback_with_their_settings(method: str, expected: dict[str, object]):
    prepared = make(method)
    (callback,) = prepared.callbacks
    assert {name: getattr(callback.config, name) for name in expected} == expected
    assert len(names(prepared)) == 12 and prepared.candidates is None


def test_options_reach_the_config():
    (callback,) = make("weightlora", options={"rounds": 2, "seed": 9}).callbacks
    assert (callback.config.rounds, callback.config.seed) == (2, 9)
    model = make("lora", options={"use_rslora": True}).model
    assert {adapter.scaling for adapter in find_adapters(model)} == {4.0}
    assert {"keep", "selection"} <= CONFIG_OPTIONS and "select_steps" not in CONFIG_OPTIONS
    assert "use_rslora" in LORA_OPTIONS and not LORA_OPTIONS & {"r", "lora_alpha", "task_type"}


def test_a_probe_needs_no_selection_steps_and_refuses_those_that_were_given():
    (callback,) = make("weightlora", select_steps=None, steps=10).callbacks
    assert (callback.config.selection, callback.config.select_steps) == ("gradient", 0)
    (callback,) = make("weightlora", select_steps=2, steps=10).callbacks
    assert (callback.config.selection, callback.config.select_steps) == ("credit", 2)
    with pytest.raises(ConfigError, match=r"^select_steps=5 has no effect with selection='gradient', which chooses"):
        make("weightlora", options={"selection": "gradient"}, select_steps=5, steps=10)


def test_adapters_that_stay_begin_alike():
    def first(method: str) -> torch.Tensor:
        torch.manual_seed(0)
        return find_adapters(make(method).model)[-1].factors[0]

    assert torch.equal(first("lora"), first("top")) and torch.equal(first("lora"), first("weightlora"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_flag(world: Path, tmp_path: Path, method: str):
    halvings = ["--select_steps", "6", "--max_steps", "8"]  # three of them
    more = {"weightlora-paper-plus": halvings, "listed": ["--listed", "query_proj"]}.get(method, [])
    given = ["--dataset", world / "glue", "--method", method, *more]
    recipe = parse(arguments(world, "cola", "deberta", tmp_path, *given))
    job = prepare(recipe)
    result = fit(job)
    plan = job.plan
    saved = {path.suffix for path in (tmp_path / ("model" if method == "full" else "adapter")).iterdir()}
    assert {".safetensors"} < saved <= {".safetensors", ".json", ".md"}
    assert result.steps == plan.steps == recipe.training.max_steps
    selects = method.startswith("weightlora") or method == "random"
    assert (plan.select_steps is not None) == selects
    if method != "random":
        assert result.trainable_parameters_before == plan.trainable[0]
        assert result.optimizer_state_bytes_before == plan.optimizer_bytes[0]
    if plan.keep is not None:
        assert result.adapters_after == plan.keep < plan.adapters == 13
        assert result.trainable_parameters_after <= plan.trainable[1]
    if method in {"lora", "dora", "rslora", "full"}:
        assert plan.trainable[0] == plan.trainable[1] == result.trainable_parameters_after
