"""PEFT adapts what the block for it names, and nothing else."""

import ast
import re
import warnings
from dataclasses import replace

import pytest
import torch
from models import lora_bert, lora_mixtral
from peft import LoraConfig, get_peft_model
from selections import CASES, adapted, chosen, edited, kept_settings, lora_llama, lora_twins, selected, wanted

from weightlora import Selection
from weightlora.measure import trainable_parameters
from weightlora.selection.formats import notes_beside


def config_in(block: str) -> LoraConfig:
    namespace: dict = {}
    exec(block, namespace)
    return namespace["config"]


@pytest.mark.parametrize("case", CASES)
def test_peft_adapts_the_chosen_modules(case):
    selection, base = CASES[case]()
    config = config_in(selection.to("peft"))
    assert (config.modules_to_save or []) == selection.modules_to_save and kept_settings(config, selection)
    model = get_peft_model(base, config)
    assert adapted(model) == wanted(selection) and len(wanted(selection)) == len(selection.kept)


@pytest.mark.parametrize("case", CASES)
def test_the_expression_matches_the_chosen_modules(case):
    selection, base = CASES[case]()
    expression, notes = selection.to("regex").removesuffix("\n"), notes_beside(selection, "regex")
    told = [note.removeprefix("target_parameters: ") for note in notes if "target_parameters: " in note]
    parameters = ast.literal_eval(f"[{told[0]}]") if told else []
    model = get_peft_model(base, LoraConfig(r=4, target_modules=expression, target_parameters=parameters))
    assert set(adapted(model)) == set(wanted(selection))


def test_the_block_for_peft():
    selection = edited(chosen(lora_llama()), kept=["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"])
    assert selection.to("peft") == (
        "# weightlora chose 2 of 14 modules (rule random).\n"
        "from peft import LoraConfig\n"
        "\n"
        "config = LoraConfig(\n"
        '    task_type="CAUSAL_LM",\n'
        "    r=4,\n"
        "    lora_alpha=8,\n"
        "    target_modules=[\n"
        '        "model.layers.0.mlp.up_proj",\n'
        '        "model.layers.1.self_attn.q_proj",\n'
        "    ],\n"
        ")\n"
    )


def test_modules_trained_in_full_are_named_and_the_heads_that_peft_adds_are_not():
    base = lora_bert().unload()
    lora = LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS", modules_to_save=["pooler"])
    selection = chosen(get_peft_model(base, lora), 1)
    assert selection.lora["modules_to_save"] == ["pooler", "classifier", "score"]
    assert selection.modules_to_save == ["pooler"]
    again = get_peft_model(base, config_in(selection.to("peft")))
    trained = {
        name.split(".modules_to_save")[0].split(".")[-1]
        for name, p in again.named_parameters()
        if p.requires_grad and "modules_to_save" in name
    }
    assert trained == {"pooler", "classifier"}


@pytest.mark.parametrize("tokens", [[1, 2], {"embed_tokens": [1, 2]}])
def test_the_rows_of_embeddings_train_again(tokens):
    model = lora_llama(trainable_token_indices=tokens)
    block = chosen(model).to("peft")
    assert config_in(block).trainable_token_indices == tokens and "That run trained" not in block
    trained = trainable_parameters(get_peft_model(model.unload(), config_in(block)))
    assert trained == chosen(model).trainable_parameters["after"] + 2 * 16


def test_unsloth_is_asked_for_what_it_trains_in_full_and_refuses_the_rest():
    block = chosen(lora_llama(modules_to_save=["lm_head", "input_layernorm", "norm"])).to("unsloth")
    assert '        "input_layernorm",' in block and "FastLanguageModel refuses" not in block
    other = get_peft_model(lora_bert().unload(), LoraConfig(target_modules=["query"], modules_to_save=["pooler"]))
    selection = chosen(other, 1)
    assert selection.model_type == "bert" and "refuses" not in selection.to("unsloth")  # it has FastModel
    unknown = replace(selection, model_type=None).to("unsloth")
    assert '# FastLanguageModel refuses "pooler" in modules_to_save: take FastModel.' in unknown


def test_names_that_end_others_are_written_as_one_expression():
    selection = chosen(lora_twins(), 3)
    assert not selection.unambiguous
    assert config_in(selection.to("peft")).target_modules == selection.target_modules
    for targets, count in ((selection.module_names, 6), (selection.target_modules, 3)):
        assert len(adapted(get_peft_model(lora_twins().unload(), LoraConfig(target_modules=targets)))) == count
    assert edited(selection, []).target_modules == []


def test_a_grid_has_a_short_form_that_holds():
    kept = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in (1, 11) for kind in "qv"]
    selection = edited(chosen(lora_llama(12)), kept)
    short = re.search(r"# Or, .*: (target_modules=.*)", selection.to("peft"))
    assert short is not None
    config = eval(f"LoraConfig(r=4, lora_alpha=8, {short[1]})")
    assert adapted(get_peft_model(lora_llama(12).unload(), config)) == wanted(selection)


def test_gates_are_named_and_left_out():
    assert "gate" in (block := Selection.of(selected(selection="stoiht")).to("peft"))
    assert config_in(block).lora_alpha == 8


@pytest.mark.parametrize("lora", [{}, {"target_modules": ["q_proj", "v_proj"], "target_parameters": None}])
def test_an_expression_that_peft_widens_on_experts_comes_with_a_warning(lora):
    selection = edited(chosen(lora_mixtral(**lora), 3), ["model.layers.0.self_attn.q_proj"])
    expression, note = selection.to("regex").removesuffix("\n"), *notes_beside(selection, "regex")
    wide = adapted(get_peft_model(lora_mixtral().unload(), LoraConfig(target_modules=expression)))
    assert len(wide) == 2 and "PEFT 0.21 adapts what an expression matches in all layers: give a list" in note
    exact = get_peft_model(lora_mixtral().unload(), config_in(selection.to("peft")))
    assert adapted(exact) == wanted(selection) and "expression" not in selection.to("peft")
    assert notes_beside(edited(chosen(lora_llama()), ["model.layers.0.mlp.up_proj"]), "regex") == []


def test_a_file_that_says_nothing_of_experts_has_the_warning_by_its_parameters():
    """Earlier versions wrote it so."""
    old = replace(edited(chosen(lora_mixtral(), 3), ["model.layers.0.self_attn.q_proj"]), fused_experts=None)
    assert "PEFT 0.21 adapts what an expression matches in all layers" in notes_beside(old, "regex")[0]


def test_only_parameters():
    names = [f"model.layers.{layer}.mlp.experts.down_proj" for layer in range(2)]
    selection = edited(chosen(lora_mixtral()), names)
    model = get_peft_model(lora_mixtral().unload(), config_in(selection.to("peft")))
    assert adapted(model) == wanted(selection)
    assert notes_beside(selection, "regex")[0] == "No module was chosen, but parameters."
    expression = selection.to("regex").removesuffix("\n")
    config = LoraConfig(r=4, target_modules=expression, target_parameters=names)
    assert set(adapted(get_peft_model(lora_mixtral().unload(), config))) == {*names}


@pytest.mark.parametrize(
    ("lora", "warns"),
    [
        ({}, False),
        ({"rank_pattern": {"down_proj": 16}}, True),
        ({"rank_pattern": {"q_proj": 16}}, True),  # the block has the largest rank, and a pattern for all others
        ({"alpha_pattern": {"down_proj": 16}}, True),
        ({"alpha_pattern": {"q_proj": 16}}, False),
    ],
)
def test_the_block_says_that_peft_wrongly_warns_of_patterns_of_parameters(lora: dict, warns: bool):
    selection = chosen(lora_mixtral(**lora), 8)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = get_peft_model(lora_mixtral().unload(), config_in(selection.to("peft")))
    assert adapted(model) == wanted(selection)
    assert any("_pattern keys did not match" in str(warning.message) for warning in seen) == warns
    note = "# PEFT 0.21 warns that it ignores the rank_pattern and alpha_pattern of parameters. It does apply them.\n"
    assert [note in selection.to(name) for name in ("peft", "axolotl", "unsloth", "trl")] == [warns] * 3 + [False]


class Unsloth:
    """Takes the place of the class that the block imports."""

    @staticmethod
    def get_peft_model(model, **arguments):
        return model, arguments


def arguments_for_unsloth(block: str) -> dict:
    code = re.sub("from unsloth import .*", "", block)
    namespace: dict = {"FastLanguageModel": Unsloth, "FastModel": Unsloth, "model": None}
    exec(code, namespace)
    return namespace["model"][1]


@pytest.mark.parametrize("case", CASES)
def test_unsloth_gets_the_arguments_of_peft(case):
    selection, base = CASES[case]()
    block = selection.to("unsloth")
    loader = "FastLanguageModel" if selection.model_type in (None, "llama") else "FastModel"
    assert f"from unsloth import {loader}\n" in block and f"model = {loader}.get_peft_model(" in block
    arguments = arguments_for_unsloth(block)
    config = LoraConfig(**arguments)
    assert adapted(get_peft_model(base, config)) == wanted(selection) and kept_settings(config, selection)
    if isinstance(arguments["target_modules"], str):
        assert arguments["target_parameters"] == [], "or Unsloth would look for experts by the expression"


def test_what_unsloth_does_otherwise_is_said():
    selection = edited(
        chosen(lora_llama(target_modules=r".*_proj|lm_head")), ["lm_head", "model.layers.0.mlp.up_proj"]
    )
    block = selection.to("unsloth")
    assert '# Unsloth trains all weights of "lm_head", without an adapter.\n' in block
    assert "# Unsloth's fused kernels leave out 1 attention or MLP block, where only a part of q, k, v" in block


@pytest.mark.parametrize(
    ("kind", "loader", "note"),
    [
        ("qwen3", "FastLanguageModel", "For a model in 8 bit: FastModel.get_peft_model."),
        ("smollm3", "FastModel", "If a finetune_... flag is off"),
        (None, "FastLanguageModel", "For others, and in 8 bit: FastModel.get_peft_model."),
    ],
)
def test_unsloth_has_fast_paths_for_some_types_and_a_general_one_that_takes_full_names(kind, loader, note):
    block = replace(chosen(lora_llama()), model_type=kind).to("unsloth")
    assert f"model = {loader}.get_peft_model(" in block and note in block


def test_unsloth_trains_in_full_what_an_expression_would_give_a_dead_adapter():
    """It moves the output layer and the embeddings out of a list, and reads an expression as it is."""
    base = lora_twins().unload()
    base.lm_head, base.draft.lm_head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=r"(layers\.\d+\.down)|(draft\.)?lm_head"))
    selection = edited(chosen(model, 3), ["layers.0.down", "lm_head"])
    assert not selection.unambiguous
    arguments = arguments_for_unsloth(selection.to("unsloth"))
    assert arguments["target_modules"] == r"layers\.0\.down" and arguments["modules_to_save"] == ["lm_head"]
    alone = arguments_for_unsloth(edited(selection, ["lm_head"]).to("unsloth"))
    assert alone["target_modules"] == ["lm_head"] and "modules_to_save" not in alone


def test_an_expression_comes_with_the_ranks_where_they_differ():
    selection = chosen(lora_llama(rank_pattern={"q_proj": 2}), 14)
    told = "Ranks: 4 (12 modules), 2 (2 modules). --format json has the rank and alpha of each."
    assert notes_beside(selection, "regex") == [told] and notes_beside(chosen(lora_llama()), "regex") == []
    assert selection.to("regex").count("\n") == 1
