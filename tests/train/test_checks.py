import sys
from pathlib import Path

import pytest

from weightlora.train import parse
from weightlora.train.checks import options_of
from weightlora.values import to_bytes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rank", 10**9], "rank=1000000000 is too large: give at most 65536"),
        (["--dropout", "nan"], "dropout=nan is not a number"),
        (["--dropout", 1], "dropout=1.0 is too large: give at most 0.99."),
        (["--train_examples", 0], "train_examples=0 is too small: give at least 1"),
        (["--eval_examples", -3], "eval_examples=-3 is too small"),
        (["--per_device_train_batch_size", 0], "per_device_train_batch_size=0 is too small"),
        (["--gradient_accumulation_steps", 0], "gradient_accumulation_steps=0 is too small"),
        (["--learning_rate", "nan"], "learning_rate=nan is not a number"),
        (["--learning_rate", -1], "learning_rate=-1.0 is too small"),
        (["--num_train_epochs", "inf"], "num_train_epochs=inf is too large"),
        (["--max_steps", 0], "max_steps=0 makes no training step: give more, or leave it out."),
        (["--max_steps", -5], "max_steps=-5 is too small: give at least -1."),
        (["--max_steps", -1, "--num_train_epochs", 0], "num_train_epochs=0 makes no training step: give more, or"),
        (["--weight_decay", "nan"], "weight_decay=nan is not a finite number: give another."),
        (["--max_grad_norm", "inf"], "max_grad_norm=inf is not a finite number"),
        (
            ["--cache_prefix", "--max_cache_bytes", 0],
            "max_cache_bytes=0 is not an amount of memory: give bytes, or a number with one of the units",
        ),
        (
            ["--cache_prefix", "--prefix_dropout", "on"],
            "prefix_dropout='on' is not known: choose one of 'refuse', 'o",
        ),
        (["--cache_prefix", "--method", "full"], "cache_prefix needs frozen blocks, and full trains all: drop one"),
        (["--seed", -1], "seed=-1 is too small"),
        (["--seed", 2**32], "seed=4294967296 is too large"),
        (["--stride", 8], "--stride is a setting of question-answering, and --task cola does not read it: drop it."),
        (
            ["--do_train", "false"],
            "do_train=False has no effect on weightlora train, for it always trains: leave it out.",
        ),
        (["--select_steps", "-1"], "select_steps=-1 must be"),
        (["--select_steps", "two"], "select_steps='two' is not a number: give a number of steps (200) or a fraction"),
        (["--load_in_4bit", "--gguf_file", "q.gguf"], "load_in_4bit=True does not quantize a GGUF model ('q.gguf'"),
        (["--packing"], "--packing is a setting of causal-lm, and --task cola does not read it"),
        (["--method", "full", "--rank", 4], "--rank is a setting of adapters, and --method full has none: drop one"),
        (["--max_cache_bytes", 5], "--max_cache_bytes is a setting of the cache: drop it, or add --cache_prefix."),
        (["--prompt", "{text:>999999999}", "--verbalised"], "must contain the text of the row"),
        (["--prompt", "{text", "--verbalised"], "must contain the text of the row"),
        (["--method", "lora", "--method_options", '{"bias": 3}'], "method_options={'bias': 3} do not fit"),
        (["--method_options", "[" * 5000], "is not JSON"),
    ],
)
def test_settings_that_cannot_be_right(world: Path, refused, more: list[object], message: str):
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "llama", "--pad_token", "</s>"]
    assert message in refused(*base, "--max_steps", 4, "--max_length", 64, "--use_cpu", *more)


def test_a_missing_package_is_named_before_the_data_is_read(world: Path, refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    base = ["--task", "cola", "--dataset", world / "nowhere", "--model", world / "llama", "--load_in_4bit"]
    assert "bitsandbytes" in refused(*base)
    assert "bitsandbytes" not in refused(*base, "--dry_run"), "a plan may be for another machine"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--keep", 0], "keep=0 must be a number of adapters of at least 1"),
        (["--keep", "5.0"], "keep=5.0 is not a fraction in (0, 1): for a number of adapters write 5."),
        (["--keep", "1.5"], "for a number of adapters write a whole number."),
        (["--keep", "inf"], "keep='inf' is not a number"),
        (["--keep_parameters", "2.0e3"], "for a number of parameters write 2000."),
        (["--keep_parameters", "0.5e1"], "for a number of parameters write 5."),
        (["--keep_memory", "6gb"], "keep_memory='6gb' is not an amount of memory"),
        (["--keep_step_time", 2], "keep_step_time=2.0 must be a fraction"),
        (
            ["--method", "top", "--keep_parameters", 0.3],
            "keep_parameters=0.3 bounds a choice, and top only takes a number of modules: give --keep, or set",
        ),
        (
            ["--method", "peft-default", "--keep_step_time", 0.5],
            "and peft-default only takes a number of parameters: give --keep_parameters, or set --method weightlora.",
        ),
        (["--method", "lora", "--keep_parameters", 0.3], "bounds a choice, and lora makes none: drop it, or set"),
        (
            ["--method", "lora-equal", "--method_options", '{"keep_parameters": "x"}'],
            "method_options has 'keep_parameters', which is an argument: give --keep_parameters instead.",
        ),
        (
            ["--method", "listed", "--listed", "query", "--method_options", '{"listed": 3}'],
            "method_options has 'listed', which is an argument: give --listed instead.",
        ),
        (["--method", "listed"], "method=listed needs a list: give --listed with names of modules, such as q_proj"),
        (["--listed", "query"], "listed=['query'] is the list of the method listed, and weightlora reads none: drop"),
        (["--prompt", "Review: {text}"], "prompt='Review: {text}' is a setting of --verbalised: drop it, or add"),
        (["--label_words", " no", " yes"], "label_words=[' no', ' yes'] is a setting of --verbalised: drop it"),
    ],
)
def test_settings_are_checked_before_the_data_is_read(world: Path, refused, monkeypatch, more, message: str):
    monkeypatch.setattr("weightlora.train.plan.read_splits", lambda *_: pytest.fail("the data was read"))
    assert message in refused("--task", "cola", "--dataset", world / "glue", "--model", world / "llama", *more)


@pytest.mark.parametrize("below", ["", "more"])
def test_an_output_directory_that_is_a_file(world: Path, tmp_path: Path, refused, below: str):
    (tmp_path / "taken").write_text("mine")
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta", "--max_length", 64]
    message = refused(*base, "--max_steps", 4, "--output_dir", tmp_path / "taken" / below)
    assert message.endswith("is not a directory that you may write to.") and "taken cannot be" in message.replace(
        "/more", ""
    )
    assert (tmp_path / "taken").read_text() == "mine"
    assert "cannot be used as a directory: File name too long" in refused(*base, "--output_dir", "x" * 5000)


def test_bytes_without_a_unit_are_an_amount_of_memory(tmp_path: Path):
    recipe = tmp_path / "memory.yaml"
    recipe.write_text("keep_memory: 1048576\n")
    for arguments in (["--keep_memory", "1048576"], ["--keep_memory", "1MiB"], ["--config", str(recipe)]):
        memory = options_of(parse([*arguments, "--output_dir", str(tmp_path)]))["keep_memory"]
        assert to_bytes("keep_memory", memory) == 2**20
