"""ms-swift 4.6.0 adapts what the snippet for it names: how it reads a file, its arguments and its setup of LoRA, from
its files."""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, Optional, Union
from unittest.mock import Mock

import peft
import pytest
import yaml
from consumers.settings.sources import define, installed
from models import lora_mixtral
from peft import get_peft_model
from selections import CASES, adapted, chosen, edited, kept_settings, wanted
from torch import nn
from transformers import HfArgumentParser

from weightlora.selection import Selection
from weightlora.selection.formats.targets import one_for_all

COMMON = {
    **{"Dict": dict, "List": list, "Literal": Literal, "Optional": Optional, "Union": Union, "SftArguments": Any},
    **{"asdict": dataclasses.asdict, "dataclass": dataclasses.dataclass, "field": dataclasses.field},
    **{"json": json, "os": os, "peft": peft, "yaml": yaml, "logger": logging.getLogger("quiet")},
    **{"strtobool": {"true": 1, "false": 0}.get, "_MAMBA_MODEL_TYPES": set(), "__name__": "swift_files"},
}
SETUP = ["prepare_adapter", "get_target_modules", "get_modules_to_save", "_drop_mamba_incompatible_targets"]
BASE = {"tuner_type": "lora", "tuner_backend": "peft", "use_swift_lora": False, "task_type": "causal_lm"}
"""Defaults of its arguments for the model (arguments/base_args/base_args.py)."""


def without_task(model: nn.Module, config: peft.LoraConfig) -> nn.Module:
    config.task_type = None  # ms-swift trains language models, and the cases are other models, too
    return get_peft_model(model, config)


@pytest.fixture
def adapt(tmp_path, monkeypatch) -> Callable[[Selection, nn.Module], nn.Module]:
    """What `swift sft FILE` makes of a snippet (cli/main.py, arguments/tuner_args.py, pipelines/train/tuner.py)."""
    package = installed("swift")
    monkeypatch.setitem(sys.modules, "swift_files", SimpleNamespace(**COMMON))  # where types are looked up
    config = define(package / "tuners/peft.py", ["LoraConfig"], {**COMMON})["LoraConfig"]
    tuners = Mock(LoraConfig=config, Swift=Mock(prepare_model=without_task))
    monkeypatch.setitem(sys.modules, "swift", Mock(tuners=tuners))
    monkeypatch.setitem(sys.modules, "swift.tuners", tuners)
    read = define(package / "cli/main.py", ["parse_yaml_args"], {**COMMON})["parse_yaml_args"]
    arguments = define(package / "arguments/tuner_args.py", ["TunerArguments"], {**COMMON})["TunerArguments"]
    arguments.model_meta = SimpleNamespace(is_multimodal=False, model_arch=None)
    prepare = define(package / "pipelines/train/tuner.py", SETUP, {**COMMON})["prepare_adapter"]
    monkeypatch.delenv("SWIFT_CONFIG_FILE", raising=False)

    def adapt(selection: Selection, model: nn.Module) -> nn.Module:
        path = tmp_path / "train.yaml"
        path.write_text(selection.to("swift"), encoding="utf-8")
        read(argv := [str(path)])
        (args,) = HfArgumentParser(arguments).parse_args_into_dataclasses(argv)
        return prepare(SimpleNamespace(**vars(args), **BASE), model)

    return adapt


@pytest.mark.parametrize("case", CASES)
def test_ms_swift_adapts_the_chosen_modules(case, adapt):
    selection, base = CASES[case]()
    model = adapt(selection, base)
    config = model.peft_config["default"]
    assert (config.modules_to_save or []) == selection.modules_to_save and kept_settings(config, selection)
    found = adapted(model)
    one = one_for_all(selection, "ms-swift")
    assert set(found) == set(wanted(selection))
    assert {rank for rank, _ in found.values()} == {one.rank}
    assert [scaling for _, scaling in found.values()] == pytest.approx([one.scaling] * len(found))


def test_ms_swift_adapts_chosen_parameters_alone(adapt):
    """An empty list is no argument, and its default is all linear modules."""
    experts = [f"model.layers.{layer}.mlp.experts.down_proj" for layer in range(2)]
    selection = edited(chosen(lora_mixtral()), experts)
    assert adapted(adapt(selection, lora_mixtral().unload())) == wanted(selection)
