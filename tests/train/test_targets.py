"""What a method is told of a run, and `--modules_from`: the modules of an earlier run, trained anew as plain LoRA."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from models import batch, lora_bert, lora_mixtral, tiny_bert
from peft import LoraConfig, get_peft_model
from recipes import BAD, GOOD, arguments, write_rows
from selections import selected
from survivors import injected
from torch import nn
from transformers import MambaConfig, MambaForCausalLM

from weightlora import Selection, WeightLoraConfig, select
from weightlora.adapters import find_adapters
from weightlora.cli import main
from weightlora.errors import ConfigError, DataError, ModelError
from weightlora.train import parse, prepare
from weightlora.train.methods import METHODS
from weightlora.train.result import read_result
from weightlora.train.targets import chosen_targets, setting_for, steps_of


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Selection]:
    """A run of the tests' BERT."""
    directory = tmp_path_factory.mktemp("chosen") / "run"
    selection = Selection.of(selected())
    return selection.save(directory), selection


@pytest.fixture
def given(world: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments for a run on a file of texts, which take the modules from `run` beside it."""
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"text": f"{(GOOD, BAD)[i % 2]} {i}", "label": i % 2} for i in range(8)]
    )
    made = arguments(world, "text-classification", "deberta", tmp_path / "out", "--train_file", rows)
    for name in ("--keep", "--select_steps"):
        place = made.index(name)
        del made[place : place + 2]
    made += ["--validation_file", str(rows), "--modules_from", str(tmp_path / "run")]
    return lambda *more: [*made, *more]


def save_choice(world_model: Path, directory: Path, names: list[str]) -> None:
    """A run that chose these modules."""
    selection = Selection.of(selected())
    modules = tuple(replace(module, name=name) for module, name in zip(selection.kept, names, strict=True))
    replace(selection, modules=modules, model=str(world_model)).save(directory)


NAMES = ["deberta.encoder.layer.0.attention.self.query_proj", "deberta.encoder.layer.1.output.dense", "pooler.dense"]


def test_exactly_the_chosen_modules_are_trained_at_any_rank(given, world: Path, tmp_path: Path, capsys):
    save_choice(world / "deberta", tmp_path / "run", NAMES)
    assert main(["train", *given("--rank", "3")]) == 0
    result = read_result(tmp_path / "out")
    assert result.names == result.kept == NAMES and result.method == "lora"
    assert result.settings["modules_from"] == str(tmp_path / "run") and result.settings["rank"] == 3
    shown = " ".join(capsys.readouterr().out.split()).replace(" ", "")
    assert f"loraonthemodulesthat{tmp_path}/runchose" in shown and f"3,onthemodulesthat{tmp_path}/runchose" in shown
    written = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert written["r"] == 3 and set(written["target_modules"]) == set(NAMES) and not written["rank_pattern"]


def test_another_method_on_a_list(given, world: Path, tmp_path: Path):
    save_choice(world / "deberta", tmp_path / "run", NAMES)
    job = prepare(parse(given("--method", "rslora")))
    assert (job.plan.adapters, job.recipe.method.method) == (3, "rslora")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--keep", "3"], "--keep chooses among modules: give one of the two"),
        (["--select_steps", "3"], "--select_steps chooses among modules"),
        (["--target_modules", "query_proj"], "--target_modules names modules, too"),
        (["--method", "weightlora"], "--method weightlora does not train a given list"),
        (["--method", "full"], "--method full does not train a given list"),
    ],
)
def test_combinations_that_contradict_are_refused(given, tmp_path: Path, capsys, more, message):
    assert main(["train", *given(*more)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_run_of_another_model_is_refused(given, tmp_path: Path, capsys):
    save_choice(Path("somewhere"), tmp_path / "run", ["a.b", *NAMES[1:]])
    assert main(["train", *given()]) == 2
    assert "chose 'a.b', which DebertaV2ForSequenceClassification does not have" in capsys.readouterr().err


def test_names_are_exact_also_where_one_ends_like_another(chosen):
    directory, selection = chosen

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert, self.draft = tiny_bert().bert, tiny_bert()

    model = Two()
    targets = chosen_targets(str(directory), model, {})
    assert isinstance(targets["target_modules"], str)
    adapted = get_peft_model(model, LoraConfig(**targets))
    assert sorted(injected(adapted)) == sorted(selection.target_modules)
    plain = chosen_targets(str(directory), tiny_bert(), {})
    assert plain == {"target_modules": selection.target_modules}


@pytest.mark.parametrize(("share", "rslora"), [(0.25, False), (0.1, False), (0.4, True)])
def test_ranks_in_proportion_are_trained_as_they_are(tmp_path: Path, share, rslora):
    model = lora_bert(use_rslora=rslora)
    choice = select(
        model, [batch(step) for step in range(4)], WeightLoraConfig(keep_parameters=share), ranks="proportional"
    )
    choice.save(tmp_path / "ranks")
    for method in ("lora", "rslora"):
        targets = chosen_targets(str(tmp_path / "ranks"), tiny_bert(), {"method": method})
        adapted = get_peft_model(tiny_bert(), LoraConfig(use_rslora=method == "rslora", **targets))
        found = {adapter.name: (adapter.rank, pytest.approx(adapter.scaling)) for adapter in find_adapters(adapted)}
        assert found == {name: (rank, choice.scalings[name]) for name, rank in choice.ranks.items()}
    assert share == 0.1 or len(set(choice.ranks.values())) > 1
    options = ({"method_options": '{"use_rslora": true}'}, {"method_options": '{"rank_pattern": {"query": 4}}'})
    for setting in ({"rank": 4}, {"alpha": 4}, *options):
        with pytest.raises(ConfigError, match=r"ranks has a rank for each module, and .* sets others: leave it out"):
            chosen_targets(str(tmp_path / "ranks"), tiny_bert(), setting)


def test_other_runs_are_trained_at_any_rank(tmp_path: Path):
    model = lora_bert(rank_pattern={"output.dense": 6}, alpha_pattern={"output.dense": 12})
    choice = select(model, [batch(step) for step in range(4)], WeightLoraConfig(keep_parameters=0.6))
    choice.save(tmp_path / "run")
    assert len(set(choice.ranks.values())) == 2
    targets = chosen_targets(str(tmp_path / "run"), tiny_bert(), {"rank": 16})
    assert targets == {"target_modules": choice.target_modules}


def test_experts_are_parameters(tmp_path: Path):
    model = lora_mixtral()
    ids = torch.arange(8)[None]
    choice = select(model, [{"input_ids": ids, "labels": ids}], WeightLoraConfig(keep=4, selection="gradient"))
    choice.save(tmp_path / "run")
    targets = chosen_targets(str(tmp_path / "run"), model.unload(), {})
    assert targets["target_parameters"] == choice.target_parameters != []


def test_fused_experts_have_the_multiple_of_the_rank_that_peft_gave_them(tmp_path: Path):
    """With all-linear, PEFT gives Mixtral's gate and up projections, which are one parameter, the rank of two."""
    ids = torch.arange(8)[None]
    choice = select(lora_mixtral().unload(), [{"input_ids": ids, "labels": ids}], WeightLoraConfig(keep=12))
    assert choice.fused_rank == 2 and len(choice.ranks) == 12
    choice.save(tmp_path / "run")
    targets = chosen_targets(str(tmp_path / "run"), lora_mixtral().unload(), {}, rank=3, alpha=6)
    adapted = get_peft_model(lora_mixtral().unload(), LoraConfig(r=3, lora_alpha=6, **targets))
    assert {adapter.name: (adapter.rank, adapter.scaling) for adapter in find_adapters(adapted)} == {
        name: (6 if name.endswith("gate_up_proj") else 3, 2.0) for name in choice.ranks
    }


def test_a_run_without_a_choice_is_refused(chosen, tmp_path: Path):
    directory, selection = chosen
    with pytest.raises(DataError, match=r"is empty: a run writes selection\.json when"):
        chosen_targets(str(tmp_path), tiny_bert(), {})
    replace(selection, phase="select", step=7).save(tmp_path / "early")
    with pytest.raises(DataError, match=r"early has made no choice yet \(step 7\)"):
        chosen_targets(str(tmp_path / "early"), tiny_bert(), {})
    with pytest.raises(ModelError, match="Sequential does not have"):
        chosen_targets(str(directory), nn.Sequential(), {})


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        (["--max_steps", 7], 7),
        (["--max_steps", -1, "--num_train_epochs", 2], 2 * 3),  # 10 rows are 3 batches of 4
        (["--max_steps", -1, "--num_train_epochs", 2, "--dataloader_drop_last", "true"], 2 * 2),
        (["--max_steps", -1, "--num_train_epochs", 2, "--gradient_accumulation_steps", 2], 2 * 2),
        (["--max_steps", -1, "--num_train_epochs", 0.5, "--gradient_accumulation_steps", 8], 1),
    ],
)
def test_steps_are_the_trainers(world: Path, tmp_path: Path, more: list[object], steps: int):
    assert steps_of(parse(arguments(world, "cola", "deberta", tmp_path, *more)).training, 10) == steps


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", "TOKEN_CLS"])
def test_all_linear_leaves_out_what_peft_cannot_adapt(world: Path, tmp_path: Path, task_type: str):
    """PEFT refuses the output of Mamba's blocks, also where `target_modules` is all-linear."""
    recipe = parse(arguments(world, "cola", "deberta", tmp_path, "--method", "lora", "--target_modules", "all-linear"))
    model = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, state_size=4))
    work = SimpleNamespace(train=range(8), task_type=task_type)
    setting = setting_for(recipe, work, model, METHODS["lora"], fresh=())  # type: ignore[arg-type]
    adapters = [adapter.name for adapter in find_adapters(setting.lora())]
    assert not any("out_proj" in name for name in adapters) and any("in_proj" in name for name in adapters)
