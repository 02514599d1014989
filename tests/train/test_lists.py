"""Lists of modules: PEFT's own for an architecture, and a user's, matched as PEFT matches `target_modules`."""

from types import SimpleNamespace

import pytest
from models import tiny_bert
from peft import LoraConfig, get_peft_model

from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError
from weightlora.train.lists import in_list, in_peft_default

NAMES = [f"model.layers.{layer}.{part}" for layer in (1, 11) for part in ("attn.q_proj", "attn.v_proj", "mlp.up_proj")]


def model_of(kind):
    return SimpleNamespace(config=SimpleNamespace(model_type=kind))


def test_the_list_of_peft_is_what_it_adapts_without_target_modules():
    plain = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS"))
    every = [name for name, _ in tiny_bert().named_modules()]
    assert in_peft_default(tiny_bert(), every) == [adapter.name for adapter in find_adapters(plain)]
    assert in_peft_default(model_of("llama"), NAMES) == [name for name in NAMES if "attn" in name]


def test_the_list_of_peft_may_be_an_expression():
    names = ["model.language_model.layers.0.q_proj", "model.vision_tower.layers.0.q_proj"]
    assert in_peft_default(model_of("gemma4"), names) == names[:1]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("new", "PEFT has no default target modules for model type 'new': leave out the method peft-default"),
        (None, "PEFT has no default target modules for model type None"),
        (
            "bert",
            r"target modules of bert \(query, value\) are not among the target modules: leave target_mod",
        ),
        ("gemma4", r"target modules of gemma4 \(\.\*language_model.*\) are not among"),
    ],
)
def test_a_model_without_such_a_list_is_refused(kind, message):
    with pytest.raises(ConfigError, match=message):
        in_peft_default(model_of(kind), NAMES)


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (["q_proj"], [NAMES[0], NAMES[3]]),
        (["mlp.up_proj", "v_proj"], [NAMES[1], NAMES[2], NAMES[4], NAMES[5]]),
        ([NAMES[4]], [NAMES[4]]),
        (["layers.1.attn.q_proj"], [NAMES[0]]),
        ([r".*\.(q|v)_proj"], [NAMES[0], NAMES[1], NAMES[3], NAMES[4]]),
        ([r"model\.layers\.1\..*"], NAMES[:3]),
    ],
)
def test_a_list_has_names_or_ends_of_names_or_is_one_expression(targets, found):
    assert in_list(targets, iter(NAMES)) == found


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "v_prj"], "listed has 'v_prj', which no target module is named: the nearest is v_proj"),
        (["proj"], "listed has 'proj', which no target module is named"),
        (
            ["attn.q_prj"],
            "listed has 'attn.q_prj', which is neither .* expression for a whole name: the nearest is attn.q_proj",
        ),
        (
            ["all-linear"],
            "listed has 'all-linear', which is neither the end of a module's name nor a regular expression",
        ),
        ([r"(q|v_proj"], r"listed='\(q|v_proj' is not a regular expression"),
    ],
)
def test_an_entry_that_fits_nothing_is_refused(targets, message):
    with pytest.raises(ConfigError, match=message):
        in_list(targets, NAMES)
