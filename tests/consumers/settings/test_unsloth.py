"""Unsloth 2026.10.9 adapts what the snippet for it names.

Unsloth imports on a GPU only. Its rules on target modules run here from its files. What calls them is restated in
`restated`, after models/llama.py, `FastLlamaModel.get_peft_model`, of that version.
"""

import ast
import re
from typing import Any

import pytest
import torch
from consumers.settings.sources import define, installed
from peft import LoraConfig, get_peft_model
from selections import CASES, adapted, chosen, edited, kept_settings, lora_llama, wanted
from torch import nn

RULES = ["_redirect_embedding_targets", "_embedding_leaf", "_raise_if_no_lora_targets_left"]
EXPERTS = ["get_moe_target_modules", "add_moe_target_modules", "is_moe_model", "_moe_target_set_from_string"]


def adapt(block: str, model: nn.Module) -> nn.Module:
    namespace: dict[str, Any] = {
        name: type("", (), {"get_peft_model": staticmethod(restated)}) for name in ("FastLanguageModel", "FastModel")
    }
    namespace["model"] = model
    exec(re.sub("from unsloth import .*", "", block), namespace)
    return namespace["model"]


def restated(
    model: nn.Module, target_modules: Any, target_parameters: Any = None, modules_to_save: Any = None, **arguments: Any
) -> nn.Module:
    """`FastLlamaModel.get_peft_model`, restated."""
    rules = unsloth_rules()
    targets, saved, moved = rules["_redirect_embedding_targets"](target_modules, modules_to_save)
    rules["_raise_if_no_lora_targets_left"](targets, moved, target_parameters)
    targets = targets if isinstance(targets, str) else list(targets)
    targets = rules["add_moe_target_modules"](targets, rules["get_moe_target_modules"](model, target_modules))
    config = LoraConfig(
        target_modules=targets, target_parameters=target_parameters, modules_to_save=saved, **arguments
    )
    return get_peft_model(model, config)


def unsloth_rules() -> dict[str, Any]:
    path = installed("unsloth") / "models/_utils.py"
    namespace: dict[str, Any] = {"torch": torch, "List": list}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(
            getattr(target, "id", "") in ("EMBEDDING_MODULES", "_MOE_BROAD_MLP_TARGETS") for target in node.targets
        )
    ]
    exec(compile(ast.Module(constants, []), str(path), "exec"), namespace)
    return define(path, RULES + EXPERTS, namespace)


def test_what_is_restated_is_in_the_file():
    """The lines that `restated` stands for are there."""
    source = (installed("unsloth") / "models/llama.py").read_text(encoding="utf-8")
    (method, *_) = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "get_peft_model"
    ]
    text = ast.unparse(method)
    for line in (
        "final_modules.append(module)",
        "_moe_module_targets = get_moe_target_modules(model, target_modules)",
        "if target_parameters is None:",
        "final_modules = add_moe_target_modules(final_modules, _moe_module_targets)",
        "target_modules=final_modules",
        "target_parameters=target_parameters",
        "modules_to_save=modules_to_save",
        "elif not _norm_modules_to_save(model, module):",
        "**kwargs)",
        "lora_config = LoraConfig(**arguments)",
    ):
        assert line in text, line


@pytest.mark.parametrize("case", CASES)
def test_unsloth_adapts_the_chosen_modules(case):
    selection, base = CASES[case]()
    model = adapt(selection.to("unsloth"), base)
    assert adapted(model) == wanted(selection) and kept_settings(model.peft_config["default"], selection)


def test_embeddings_are_trained_whole_as_the_block_says():
    kept = ["lm_head", "model.layers.0.mlp.up_proj"]
    selection = edited(chosen(lora_llama(target_modules=r".*_proj|lm_head")), kept)
    block = selection.to("unsloth")
    assert 'trains all weights of "lm_head"' in block
    model = adapt(block, lora_llama(target_modules=r".*_proj|lm_head").unload())
    assert set(adapted(model)) == {"model.layers.0.mlp.up_proj"}
    assert model.peft_config["default"].modules_to_save == ["lm_head"]
