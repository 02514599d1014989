"""The help that is made without Transformers says what is true of its arguments."""

import subprocess
import sys
from dataclasses import MISSING, fields

import pytest
from transformers import Seq2SeqTrainingArguments

from weightlora.cli import main
from weightlora.cli.flags import USUAL, is_asked, usual_parser
from weightlora.cli.select import (
    FORMAT_NAMES,
    GROUP_NAMES,
    METHOD_NAMES,
    OF_CHOICE,
    OF_TRAINING,
    RULE_NAMES,
    full_parser,
)
from weightlora.rules import RULES
from weightlora.selection.formats import FORMATS
from weightlora.selection.groups import GROUPS
from weightlora.train.arguments import make_parser
from weightlora.train.methods import METHODS

OURS = {"learning_rate", "max_steps"}
"""Whose default in the help is ours, or is a number that says nothing."""


def test_the_defaults_are_those_of_transformers():
    theirs = {
        field.name: field.default if field.default is not MISSING else None
        for field in fields(Seq2SeqTrainingArguments)
    }
    theirs |= {"gradient_checkpointing": theirs["gradient_checkpointing"] or None}  # False in older versions
    assert {name: default for name, (_, default, _) in USUAL.items() if name not in OURS} == {
        name: theirs[name] for name in USUAL if name not in OURS
    }


def test_a_switch_in_the_help_needs_no_value_and_each_flag_is_one():
    parsed = {action.dest: action for action in make_parser()._actions}
    shown = usual_parser("train", "")._actions
    for action in shown:
        if action.dest not in ("help", "config"):
            assert (action.nargs == 0) == (parsed[action.dest].nargs in (0, "?")), action.dest
            assert set(action.option_strings) <= set(parsed[action.dest].option_strings)
    assert {action.dest for action in shown} >= set(OF_TRAINING), "what is hidden there is shown here"


def test_the_names_in_the_help_are_those_of_the_registries():
    rules = [name for name, rule in RULES.items() if rule.__module__.startswith("weightlora.")]  # benchmarks add more
    for names, registered in ((FORMAT_NAMES, FORMATS), (RULE_NAMES, rules), (GROUP_NAMES, GROUPS)):
        assert names.split(", ") == list(registered)


def test_the_help_of_select_lists_the_methods_that_choose_and_says_one_default():
    choosing = [name for name, method in METHODS.items() if "keep" in method.options]
    assert sorted(METHOD_NAMES.replace(" or ", ", ").split(", ")) == sorted(choosing)
    shown = full_parser().format_help()
    assert "lora-equal" not in shown and "for full" not in shown
    keep = shown[shown.index("--keep KEEP ") : shown.index("--keep_parameters ")]
    assert keep.count("default") == 1 and "quarter" in keep
    assert {*OF_CHOICE} <= {action.dest for action in usual_parser("train", "")._actions}


def test_a_switch_is_found_in_each_spelling():
    assert is_asked("help_all", ["--keep", "3", "--help-all"]) and is_asked("help_all", ["--help_all"])
    assert is_asked("help", ["-h"]) and is_asked("help", ["--help"]) and not is_asked("help", ["--help_all"])


@pytest.mark.parametrize("command", ["train", "select"])
def test_the_help_imports_nothing_that_takes_seconds(command: str):
    code = f"import sys; from weightlora.cli import main; main(['{command}', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, loaded = done.stdout.splitlines()
    assert not {"torch", "transformers", "peft", "rich"} & set(loaded.split())
    assert len(shown) < 180 and any("--per_device_train_batch_size N" in line for line in shown)


def test_all_flags_are_listed_when_they_are_asked_for(capsys: pytest.CaptureFixture):
    assert main(["train", "--help"]) == 0
    short = capsys.readouterr().out
    assert "--help_all" in short and "--fsdp" not in short
    assert main(["train", "--help_all"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  --{name}" in listed for name in ("fsdp", "deepspeed", "keep", "config", *USUAL))
    assert listed.index("--task TASK") < listed.index("--fsdp"), "ours come first"
