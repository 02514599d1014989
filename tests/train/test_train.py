from pathlib import Path

import pytest
import torch
from peft import PeftModel
from recipes import BAD, GOOD, save_model, write_parquet
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from weightlora.adapters import find_adapters
from weightlora.cli import main
from weightlora.train import fit, parse
from weightlora.train.methods import METHODS
from weightlora.train.plan import prepare, steps_of

QUICK = ["--max_steps", "4", "--select_steps", "2", "--max_length", "64", "--keep", "3", "--use_cpu"]
QUICK += ["--per_device_train_batch_size", "4", "--save_strategy", "no", "--disable_tqdm", "true"]


def arguments(world: Path, task: str, model: str, output: Path, *more: object) -> list[str]:
    pad = ["--pad_token", "</s>"] if model == "llama" else []
    given = ["--task", task, "--model", world / model, "--output_dir", output, *pad, *QUICK, *more]
    return list(map(str, given))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_flag(world: Path, tmp_path: Path, method: str):
    halvings = ["--select_steps", "6", "--max_steps", "8"]  # three of them
    more = halvings if method == "weightlora-paper-plus" else []
    given = ["--dataset", world / "glue", "--method", method, *more]
    recipe = parse(arguments(world, "cola", "deberta", tmp_path, *given))
    job = prepare(recipe)
    result = fit(job)
    plan = job.plan
    saved = {path.suffix for path in (tmp_path / ("model" if method == "full" else "adapter")).iterdir()}
    assert {".safetensors"} < saved <= {".safetensors", ".json", ".md"}
    assert result.steps == plan.steps == recipe.training.max_steps
    selects = method.startswith("weightlora") or method == "random"
    assert (plan.select_steps is not None) == selects
    if method != "random":
        assert result.trainable_parameters_before == plan.trainable[0]
        assert result.optimizer_state_bytes_before == plan.optimizer_bytes[0]
    if plan.keep is not None:
        assert result.adapters_after == plan.keep < plan.adapters == 13
        assert result.trainable_parameters_after <= plan.trainable[1]
    if method in {"lora", "dora", "rslora", "full"}:
        assert plan.trainable[0] == plan.trainable[1] == result.trainable_parameters_after


def test_the_plan_is_what_happens(world: Path, tmp_path: Path):
    """Adapters all of one size: then the plan after the choice is exact, too."""
    targets = ["--target_modules", "query_proj", "key_proj", "value_proj"]
    more = ["--dataset", world / "glue", "--max_steps", "-1", "--num_train_epochs", "2", *targets]
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
    assert [adapter.name for adapter in find_adapters(loaded, check=False)] == result.kept
    assert all(bool(adapter.factors[1].any()) for adapter in find_adapters(loaded, check=False))


@pytest.mark.parametrize("method", ["weightlora", "lora"])
def test_a_run_goes_on_where_it_stopped(world: Path, tmp_path: Path, method: str):
    saving = ["--dataset", world / "glue", "--save_strategy", "steps", "--save_steps", "3", "--method", method]
    whole = fit(prepare(parse(arguments(world, "cola", "deberta", tmp_path / "whole", *saving))))
    assert (tmp_path / "whole" / "checkpoint-3").is_dir()
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "whole" / "checkpoint-3").rename(again / "checkpoint-3")
    resumed = arguments(world, "cola", "deberta", again, *saving, "--resume_from_checkpoint", "true")
    result = fit(prepare(parse(resumed)))
    assert result.kept == whole.kept and result.steps == 4
    first, second = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (tmp_path / "whole", again))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


FILMS = [{"text": (GOOD, BAD)[i % 2], "label": ("good", "bad")[i % 2]} for i in range(12)]


def test_text_files_with_names_as_labels(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """CSV and TSV, other column names, and labels that are words."""
    csv, tsv = tmp_path / "train.csv", tmp_path / "dev.tsv"
    csv.write_text("phrase,gold\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in FILMS))
    tsv.write_text("phrase\tgold\n" + "".join(f'"{row["text"]}\t{row["label"]}\n' for row in FILMS))  # a bare quote
    more = ["--columns", '{"text": "phrase", "label": "gold"}', "--learning_rate", "1e-2", "--max_steps", "30"]
    base = arguments(world, "text-classification", "deberta", tmp_path / "out", "--dataset", tmp_path, *more)
    recipe = parse(base)
    job = prepare(recipe)
    assert job.config.id2label == {0: "bad", 1: "good"} and job.plan.rows == {"train": 12, "validation": 12}
    assert main(["train", *base, "--logging_steps", "10"]) == 0
    out = capsys.readouterr().out
    losses = [
        float(line.split("'loss': ")[1].strip("'").split("'")[0].split(",")[0])
        for line in out.splitlines()
        if "'loss'" in line
    ]
    assert len(losses) == 3 and losses[2] < losses[0]


CHATS = [
    {"messages": [{"role": "user", "content": "a film"}, {"role": "assistant", "content": text}]}
    for text in (GOOD, BAD)
]
FORMS = {
    "messages": CHATS,
    "completion": [{"prompt": "Review: ", "completion": text} for text in (GOOD, BAD)],
    "text": [{"text": text} for text in (GOOD, BAD)],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_causal_lm_learns_the_answer_alone(world: Path, tmp_path: Path, form: str):
    file = tmp_path / "rows.parquet"
    write_parquet(file, FORMS[form] * 4)
    more = ["--train_file", file, "--validation_file", file]
    job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path / "out", *more)))
    batch = job.work.collate([job.work.train[i] for i in range(2)])
    learned = [job.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    expected = {"messages": "assistant: {}</s>", "completion": "{}</s>", "text": "<s>{}</s>"}[form]
    start = "" if form != "messages" else "assistant: "
    assert learned == [expected.format(text).removeprefix(start) for text in (GOOD, BAD)]
    result = fit(job)
    found = result.metrics["validation"]
    assert found["perplexity"] == pytest.approx(2.718281828 ** found["held_out_loss"], rel=0.02)


def test_a_word_is_the_answer(world: Path, tmp_path: Path):
    """The prompt is whole however long the text, the answer last, and the loss that of the answer alone."""
    file = tmp_path / "rows.parquet"
    write_parquet(file, [{"sentence": GOOD * 9, "label": 1}, {"sentence": BAD, "label": 0}] * 4)
    more = ["--train_file", file, "--validation_file", file, "--verbalised", "--max_length", "60"]
    job = prepare(parse(arguments(world, "sst2", "llama", tmp_path / "out", *more)))
    texts = [job.tokenizer.decode(row["input_ids"]) for row in (job.work.train[0], job.work.train[1])]
    assert texts[0].startswith(f"<s>Review: {GOOD}a fine") and len(job.work.train[0]["input_ids"]) == 60
    assert "\nSentiment:" in texts[0] and texts[1].startswith(f"<s>Review: {BAD}\nSentiment:")
    batch = job.work.collate([job.work.train[0], job.work.train[1]])
    assert batch["labels"].shape == (2, 2) and batch["logits_to_keep"] == 2
    assert batch["position_ids"][1].tolist().count(0) > 1 and int(batch["position_ids"][0, -1]) == 59
    result = fit(job)
    assert result.metric == "accuracy" and result.steps == 4


def test_words_of_a_sentence_have_classes(world: Path, tmp_path: Path):
    rows = [{"tokens": ["Ann", "made", "films"], "tags": ["PER", "O", "O"]}] * 6
    write_parquet(tmp_path / "rows.parquet", rows)
    more = ["--train_file", tmp_path / "rows.parquet", "--validation_file", tmp_path / "rows.parquet"]
    job = prepare(parse(arguments(world, "token-classification", "deberta", tmp_path / "out", *more)))
    row = job.work.train[0]
    assert [label for label in row["labels"] if label != -100] == [1, 0, 0]
    assert len(row["labels"]) == len(row["input_ids"]) > 5
    assert job.plan.adapters == 12  # the head trains whole
    assert fit(job).metrics["validation"].keys() == {"held_out_loss", "f1", "precision", "recall", "accuracy"}


def test_long_contexts_have_windows_and_questions_may_have_no_answer(world: Path, tmp_path: Path):
    more = ["--dataset", world / "squad_v2", "--stride", "16"]
    job = prepare(parse(arguments(world, "squad_v2", "deberta", tmp_path, *more)))
    assert job.plan.rows["train"] > 12 and job.plan.rows["validation"] > 6
    answered = 0
    for row in job.work.train:
        start, end = row["start_positions"], row["end_positions"]
        if (start, end) != (0, 0):
            answered += 1
            assert job.tokenizer.decode(row["input_ids"][start : end + 1]).replace(" ", "") in {"Ann", "Bob", "Carl"}
    assert answered >= 6  # every second question of 12
    found = fit(job).metrics["validation"]
    assert {"f1", "exact_match", "HasAns_f1", "NoAns_f1", "best_f1"} <= found.keys() and found["best_f1"] >= 50


def test_sixteen_bits_and_gradient_checkpointing(world: Path, tmp_path: Path):
    more = ["--dataset", world / "glue", "--bf16", "--gradient_checkpointing"]
    result = fit(prepare(parse(arguments(world, "cola", "llama", tmp_path, *more))))
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert any("score" in name for name in tensors)
    assert result.adapters_after == 3


def test_four_bits(world: Path, tmp_path: Path):
    save_model("llama", tmp_path / "llama", width=64)  # the kernels need whole blocks
    more = ["--dataset", world / "glue", "--load_in_4bit", "--verbalised", "--model", tmp_path / "llama"]
    result = fit(prepare(parse(arguments(world, "cola", "llama", tmp_path, *more))))
    assert result.adapters_after == 3
