"""The JSON object says all that a program needs."""

import json

import pytest
from peft import LoraConfig, get_peft_model
from selections import adapted, chosen, lora_twins, selected

from weightlora import Selection
from weightlora.errors import ConfigError
from weightlora.selection.formats import FORMATS


def test_one_object_with_all_that_a_program_needs():
    selector = selected(keep=2)
    selection = Selection.of(selector)
    assert json.loads(selection.to("json")) == {
        "model": None,
        "rule": "credit",
        "target_modules": selector.kept,
        "target_parameters": [],
        "modules_to_save": [],
        "rank": 4,
        "alpha": 8,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "adapters": {"before": 12, "after": 2},
        "trainable_parameters": {
            "before": sum(selector.sizes.values()),
            "after": sum(selector.sizes[name] for name in selector.kept),
        },
        "scores": selector.scores,
    }


def test_peft_adapts_the_chosen_modules_where_names_end_others():
    selection = chosen(lora_twins(), 3)
    targets = json.loads(selection.to("json"))["target_modules"]
    found = adapted(get_peft_model(lora_twins().unload(), LoraConfig(target_modules=targets)))
    assert set(found) == set(selection.module_names)


def test_the_formats_have_names():
    assert set(FORMATS) == {
        *("peft", "trl", "axolotl", "llamafactory", "swift", "unsloth", "torchtune", "mlx", "regex", "json")
    }
    selection = Selection.of(selected())
    for name in FORMATS:
        text = selection.to(name)
        assert text.endswith("\n") and not text.endswith("\n\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("axolotle", r"format='axolotle' is not known: the nearest is axolotl\.$"),
        ("LLaMA-Factory", "the nearest is llamafactory"),
        ("gguf9", "choose one of 'peft', 'trl',"),
    ],
)
def test_an_unknown_format_names_the_nearest(name, message):
    with pytest.raises(ConfigError, match=message):
        Selection.of(selected()).to(name)
