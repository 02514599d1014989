"""LLaMA-Factory 0.9.5 adapts what the snippet for it names: its arguments and its setup of LoRA, from its files."""

import logging
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Optional

import peft
import pytest
import torch
from consumers.settings.sources import define, installed, load_file
from peft import get_peft_model
from selections import CASES, adapted, chosen, edited, kept_settings, lora_llama, wanted
from torch import nn
from transformers import HfArgumentParser

from weightlora.selection.formats.targets import one_for_all


class Quiet(logging.Logger):
    info_rank0 = warning_rank0 = logging.Logger.debug


def adapt(block: str, model: nn.Module, tmp_path) -> nn.Module:
    """What LLaMA-Factory makes of its YAML file (hparams/parser.py, model/adapter.py)."""
    package = installed("llamafactory")
    omegaconf = pytest.importorskip("omegaconf")
    (tmp_path / "train.yaml").write_text(block, encoding="utf-8")
    values = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.load(tmp_path / "train.yaml"))
    arguments = load_file(package / "hparams/finetuning_args.py").FinetuningArguments
    (finetuning,) = HfArgumentParser(arguments).parse_dict(values)
    visual = define(
        package / "model/model_utils/visual.py",
        ["CompositeModel", "_register_composite_model", "get_forbidden_modules", "patch_target_modules"],
        {
            "logger": Quiet("quiet"),
            "dataclass": dataclass,
            "COMPOSITE_MODELS": {},
            "Optional": Optional,
            "torch": torch,
        },
    )
    visual["_register_composite_model"](model_type="gemma3")  # as the file has it
    namespace: dict[str, Any] = {**vars(peft), "logger": Quiet("quiet"), "torch": torch}
    namespace |= {"is_deepspeed_zero3_enabled": lambda: False, "patch_target_modules": visual["patch_target_modules"]}
    namespace["get_peft_model"] = lambda model, config: get_peft_model(model, without_task(config))
    setup = define(package / "model/adapter.py", ["_setup_lora_tuning"], namespace)["_setup_lora_tuning"]
    model_args = SimpleNamespace(adapter_name_or_path=None, resize_vocab=False, use_kt=False, use_unsloth=False)
    return setup(None, model, model_args, finetuning, is_trainable=True, cast_trainable_params_to_fp32=False)


def without_task(config: peft.LoraConfig) -> peft.LoraConfig:
    config.task_type = None  # LLaMA-Factory trains language models, and the cases are other models, too
    return config


@pytest.fixture(autouse=True)
def config_on_every_model(monkeypatch):
    monkeypatch.setattr(nn.Module, "config", SimpleNamespace(model_type="none"), raising=False)


@pytest.mark.parametrize("case", [case for case in CASES if case != "a name that ends another's"])
def test_llamafactory_adapts_the_chosen_modules(case, tmp_path):
    selection, base = CASES[case]()
    model = adapt(selection.to("llamafactory"), base, tmp_path)
    config = model.peft_config["default"]
    assert (config.modules_to_save or []) == selection.modules_to_save and kept_settings(config, selection)
    found = adapted(model)
    one = one_for_all(selection, "LLaMA-Factory")
    assert set(found) == set(selection.target_modules)
    assert {rank for rank, _ in found.values()} == {one.rank}
    assert [scaling for _, scaling in found.values()] == pytest.approx([one.scaling] * len(found), rel=0.03)
    assert set(found) == set(wanted(selection)) or "LLaMA-Factory adapts no parameters" in selection.to("llamafactory")


def test_more_than_the_chosen_where_names_end_others(tmp_path):
    """As the snippet says."""
    selection, base = CASES["a name that ends another's"]()
    block = selection.to("llamafactory")
    assert "it may adapt them, too" in block
    assert len(adapted(adapt(block, base, tmp_path))) == 2 * len(selection.kept)


def test_a_model_whose_names_it_looks_for_as_parts_of_names(tmp_path):
    """In models with a vision tower each name is looked for inside all names: layer 1 is not in layer 11."""
    kept = ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj", "model.layers.10.self_attn.v_proj"]
    selection = edited(chosen(lora_llama(12)), kept)
    base = lora_llama(12).unload()
    base.config.model_type = "gemma3"
    assert adapted(adapt(selection.to("llamafactory"), base, tmp_path)) == wanted(selection)
