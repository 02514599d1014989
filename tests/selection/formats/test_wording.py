"""Whatever a name holds, Python, YAML and a regular expression read the same name again."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from selections import chosen, lora_llama

from weightlora import Selection
from weightlora.run import ALSO
from weightlora.selection.formats import FORMATS
from weightlora.selection.formats.wording import alternatives, how_many, names_in, python_value, quoted, yaml_text

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(NAMES)
def test_names_come_back(name):
    assert eval(quoted(name)) == name
    assert yaml.safe_load(quoted(name)) == name
    assert yaml.safe_load(f"- {yaml_text(name)}") == [name]
    assert eval(python_value({name: 1})) == {name: 1}
    assert re.fullmatch(alternatives([name]), name)
    assert not {"\n", "\r", "\x85", "\u2028"} & set(quoted(name) + names_in([name]) + alternatives([name]))


@given(st.lists(NAMES, min_size=2, max_size=4), NAMES)
def test_an_expression_matches_its_names_alone(names, other):
    expression = alternatives(names)
    assert all(re.fullmatch(expression, name) for name in names)
    assert bool(re.fullmatch(expression, other)) == (other in names)


@pytest.mark.parametrize("name", ["null", "yes", "1e3", "0.5", "a: b", "- x", "# c", "~", "'", "*a", "0x1.2"])
def test_what_yaml_would_read_otherwise_is_quoted(name):
    assert yaml.safe_load(yaml_text(name)) == name
    assert yaml_text("model.layers.0.q_proj") == "model.layers.0.q_proj"


def test_a_comment_stays_in_its_line_whatever_the_rule_of_a_record_is():
    values = chosen(lora_llama()).to_dict()
    values["config"]["selection"] = "x\nimport os"
    for name in FORMATS.keys() - {"json", "regex"}:
        first = Selection.from_dict(values).to(name).splitlines()[0]
        assert first == r'# weightlora chose 5 of 14 modules (rule "x\x0aimport os").', name


def test_python_values():
    assert python_value([]) == "[]" and python_value({}) == "{}" and python_value(4) == "4"
    assert python_value(["a", "b"]) == '[\n        "a",\n        "b",\n    ]'


def test_long_lists_are_cut():
    assert names_in(["a.b"] * 3) == "a.b, a.b, a.b"
    assert names_in(["a.b"] * 5) == "a.b, a.b, a.b and 2 more"
    assert how_many([4, 4, 2]) == "4 (2 modules), 2 (1 module)"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, None),
        ({"use_dora": True, "lora_dropout": 0.1}, None),
        ({"lora_bias": True}, "lora_bias=true"),
        ({"lora_dropout": 0.1, "bias": "all"}, 'bias="all"'),
    ],
)
def test_each_snippet_says_which_other_settings_the_run_had(settings, told):
    """A training with the snippet alone would train other parameters."""
    selection = chosen(lora_llama(**settings))
    assert {name: selection.lora[name] for name in selection.lora.keys() & ALSO.keys()} == settings
    for name in FORMATS.keys() - {"json", "regex", "peft", "unsloth"}:
        said = selection.to(name)
        assert (f"# That run had {told}, which is not set below. Set it in your" in said) == (told is not None), name
        assert ("is not set below" in said) == (told is not None), name


def test_peft_unsloth_and_json_have_all_other_settings():
    settings = {"use_dora": True, "lora_dropout": 0.1, "bias": "all", "lora_bias": True}
    selection = chosen(lora_llama())
    selection = replace(selection, lora={**selection.lora, **settings})
    for name in ("peft", "unsloth"):
        lines = selection.to(name).splitlines()
        assert all(f"    {key}={python_value(value)}," in lines for key, value in settings.items())
    found = json.loads(selection.to("json"))
    assert {key: found[key] for key in settings} == settings
    assert settings.keys().isdisjoint(json.loads(chosen(lora_llama()).to("json")))


def test_axolotl_has_rows_of_embeddings():
    for tokens in ([1, 2], {"embed_tokens": [1, 2]}):
        text = chosen(lora_llama(trainable_token_indices=tokens)).to("axolotl")
        assert yaml.safe_load(text)["peft_trainable_token_indices"] == tokens


@pytest.mark.parametrize("tokens", [None, [1, 2], {"embed_tokens": [1, 2]}])
def test_each_snippet_says_which_rows_of_embeddings_the_run_trained(tokens):
    selection = chosen(lora_llama(trainable_token_indices=tokens))
    assert (selection.trainable_token_indices or None) == tokens
    for name in FORMATS.keys() - {"json", "regex", "peft", "axolotl"}:
        note = f"# That run trained rows of an embedding, too: trainable_token_indices={json.dumps(tokens)}."
        assert (note in selection.to(name)) == (tokens is not None), name
    assert json.loads(selection.to("json")).get("trainable_token_indices") == tokens
