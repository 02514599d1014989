from pathlib import Path

import pytest
from peft import PeftModel
from recipes import arguments, family_arguments
from transformers import AutoModelForSequenceClassification

from weightlora.adapters import find_adapters
from weightlora.cli.train import lengths_of
from weightlora.train import fit, parse
from weightlora.train.plan import prepare
from weightlora.train.targets import steps_of


def test_the_plan_is_what_happens(world: Path, tmp_path: Path):
    """Adapters all of one size: then the plan after the choice is exact, too."""
    targets = ["--target_modules", "query_proj", "key_proj", "value_proj"]
    more = ["--dataset", world / "glue", "--max_steps", "-1", "--num_train_epochs", "2", *targets, "--revision", "v1"]
    recipe = parse(arguments(world, "sst2", "deberta", tmp_path, *more, "--gradient_accumulation_steps", "2"))
    job = prepare(recipe)
    result = fit(job)
    assert result.steps == job.plan.steps == 2 * 3 == steps_of(recipe.training, 24)
    head = 16 * 2 + 2
    assert job.plan.trainable == (6 * 8 * 32 + head, 3 * 8 * 32 + head)
    assert (result.trainable_parameters_before, result.trainable_parameters_after) == job.plan.trainable
    assert (result.adapter_parameters_before, result.adapter_parameters_after) == (6 * 8 * 32, 3 * 8 * 32)
    assert (result.optimizer_state_bytes_before, result.optimizer_state_bytes_after) == job.plan.optimizer_bytes
    assert job.plan.optimizer_bytes == (8 * (6 * 256 + head) + 4 * 14, 8 * (3 * 256 + head) + 4 * 8)
    base = AutoModelForSequenceClassification.from_pretrained(world / "deberta", num_labels=2)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert loaded.peft_config["default"].revision == "v1", "AutoPeftModel loads this revision of the base"
    assert [adapter.name for adapter in find_adapters(loaded, check=False)] == result.kept
    assert all(bool(adapter.factors[1].any()) for adapter in find_adapters(loaded, check=False))


def test_a_plan_with_a_learning_rate_and_no_choice(world: Path, tmp_path: Path):
    job = prepare(
        parse(arguments(world, "cola", "deberta", tmp_path, "--dataset", world / "glue", "--method", "lora"))
    )
    plan = job.plan
    assert (plan.adapters, plan.keep, plan.select_steps, plan.steps) == (13, None, None, 4)
    assert plan.rows == {"train": 24, "validation": 12} and not plan.split_off
    assert plan.model == "DebertaV2ForSequenceClassification" and plan.trainable[0] == plan.trainable[1]
    assert job.recipe.given["learning_rate"] == plan.learning_rate == 5e-4


@pytest.mark.parametrize("task", ["cola", "xsum", "token-classification", "causal-lm", "sst2-verbalised"])
def test_the_plan_counts_the_rows_that_reach_max_length(world: Path, tmp_path: Path, task: str):
    given = family_arguments(world, task, tmp_path)
    lengths = sorted(len(ids) for ids in prepare(parse(given)).work.train["input_ids"])
    limit = max(lengths[len(lengths) // 2], 12 if task.endswith("verbalised") else 4)
    plan = prepare(parse([*given, "--max_length", str(limit)])).plan
    assert plan.max_tokens == limit and plan.full_rows == sum(length >= limit for length in lengths) > 0


def test_the_plan_counts_the_targets_that_reach_max_target_length(world: Path, tmp_path: Path):
    given = family_arguments(world, "xsum", tmp_path)
    lengths = sorted(len(ids) for ids in prepare(parse(given)).work.train["labels"])
    limit = max(4, lengths[len(lengths) // 2])
    plan = prepare(parse([*given, "--max_target_length", str(limit)])).plan
    assert plan.max_target == limit and plan.full_targets == sum(length >= limit for length in lengths) > 0
    said = lengths_of(plan)["targets"]
    assert said.startswith(
        f"at most {limit} tokens in a target (max_target_length); {plan.full_targets} of {len(lengths)} training"
    )


def test_windows_and_blocks_lose_nothing(world: Path, tmp_path: Path):
    blocks = [*family_arguments(world, "causal-lm", tmp_path), "--packing", "--max_length", "16"]
    windows = [*family_arguments(world, "squad", tmp_path), "--max_length", "32", "--stride", "8"]
    plans = [prepare(parse(given)).plan for given in (blocks, windows)]
    assert [(plan.max_tokens, plan.full_rows) for plan in plans] == [(0, 0)] * 2


@pytest.mark.parametrize(("dtype", "flag"), [("bfloat16", "bf16"), ("float16", "fp16")])
def test_a_head_in_float32_does_not_fit_16_bits_unless_it_computes_in_both(
    world: Path, tmp_path: Path, refused, monkeypatch, dtype, flag
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    base = ["--task", "cola", "--dataset", world / "glue", "--max_length", 64, "--use_cpu", "--dtype", dtype]
    assert refused(*base, "--model", world / "deberta") == (
        f"dtype={dtype} does not fit the head, which trains in float32: add --{flag}, which computes in both, or "
        "leave dtype out."
    )
    fine = (
        ["--model", world / "llama", "--pad_token", "</s>", "--verbalised"],
        ["--model", world / "deberta", "--bf16"],
    )
    for more in fine if dtype == "bfloat16" else fine[:1]:
        prepare(parse([*map(str, [*base, *more]), "--output_dir", str(tmp_path / "out")]))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", flag)  # as accelerate launch --mixed_precision does
    prepare(parse([*map(str, [*base, "--model", world / "deberta"]), "--output_dir", str(tmp_path / "out")]))


def test_a_method_of_the_benchmarks_is_named(refused):
    message = refused("--task", "cola", "--method", "adalora")
    assert message.endswith("run python -m benchmarks train --method adalora there.")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task", "colla"], "task='colla' is not known: the nearest is cola."),
        (["--method", "wieghtlora"], "method='wieghtlora' is not known: the nearest is weightlora"),
        (["--keep", "15"], "keep=15 is more than the model's 14 LoRA adapters"),
        (["--keep", "many"], "keep='many' is not a number"),
        (["--rank", "0"], "rank=0 is too small"),
        (["--select_steps", "9"], "select_steps=9 is longer than the training of 4 steps"),
        (["--target_modules", "nothing"], "target_modules has 'nothing', which no module of the model is named"),
        (["--verbalised", "--task", "stsb"], "verbalised=True needs classes, and stsb is of regression"),
        (["--verbalised", "--label_words", " x", " x"], "must differ in their first token"),
        (["--verbalised", "--prompt", "Well?"], "prompt='Well?' must contain the text of the row"),
        (["--method_options", "[]"], "method_options='[]' is not a JSON object"),
    ],
)
def test_settings_that_do_not_fit(world: Path, refused, more: list[str], message: str):
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "llama", "--pad_token", "</s>"]
    assert message in refused(*base, "--max_steps", 4, "--max_length", 64, *more)
