"""axolotl 0.19.0 adapts what the snippet for it names: its schema, its rules and its `LoraConfig`, from its files."""

import logging
import re

import peft
import pytest
import yaml
from consumers.settings.sources import define, installed, load_file
from peft import get_peft_model
from selections import CASES, adapted, chosen, edited, kept_settings, lora_llama, wanted
from torch import nn


class NoPlugins:
    def get_lora_config_kwargs(self, cfg):
        return {}


def config_of(block: str, model: nn.Module) -> peft.LoraConfig:
    """What axolotl makes of its YAML file (loaders/adapter.py, `load_lora`)."""
    package = installed("axolotl")
    pytest.importorskip("addict")
    values = yaml.safe_load(block)
    rules = define(package / "utils/schemas/config.py", ["check_lora_target_modules_regex"], {"re": re})
    schema = load_file(package / "utils/schemas/peft.py").LoraConfig
    checked = schema.model_validate(rules["check_lora_target_modules_regex"](None, values))
    names = ["_get_peft_task_type", "_build_lora_config_kwargs", "_build_peft_lora_config"]
    builder = define(
        package / "loaders/adapter.py",
        names,
        {**vars(peft), "PLUGIN_MANAGER": NoPlugins(), "LOG": logging.getLogger("quiet")},
    )
    read = load_file(package / "utils/dict.py").DictDefault(checked.model_dump(exclude_unset=True))
    config = builder["_build_peft_lora_config"](model, read)
    config.task_type = None  # axolotl trains language models, and the cases are other models, too
    return config


@pytest.mark.parametrize("case", CASES)
def test_axolotl_adapts_the_chosen_modules(case):
    selection, base = CASES[case]()
    config = config_of(selection.to("axolotl"), base)
    assert (config.modules_to_save or []) == selection.modules_to_save and kept_settings(config, selection)
    found = adapted(get_peft_model(base, config))
    assert {name: rank for name, (rank, _) in found.items()} == selection.ranks
    strengths = {name: scaling for name, (_, scaling) in found.items()}
    # alpha is a whole number, and with rsLoRA at rank 6 it was none
    assert strengths == pytest.approx(selection.scalings, rel=0.03 if case == "rsLoRA" else 0)
    assert set(found) == set(wanted(selection))


def test_the_short_form_holds():
    kept = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in (1, 11) for kind in "qv"]
    selection = edited(chosen(lora_llama(12)), kept)
    block = selection.to("axolotl")
    short = re.search(r"# Or, .*: lora_target_modules: (\[.*\]) and peft_layers_to_transform: (\[.*\])", block)
    assert short is not None
    settings = yaml.safe_load(block) | {
        "lora_target_modules": yaml.safe_load(short[1]),
        "peft_layers_to_transform": yaml.safe_load(short[2]),
    }
    base = lora_llama(12).unload()
    assert adapted(get_peft_model(base, config_of(yaml.safe_dump(settings), base))) == wanted(selection)
