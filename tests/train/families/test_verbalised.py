from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import BAD, GOOD, LABELLED, arguments, family_arguments, files_of, write_parquet, write_rows
from transformers import EvalPrediction

from weightlora.train import fit, parse, prepare
from weightlora.train.data import read_splits
from weightlora.train.families.verbalised import verbalised
from weightlora.train.tasks import find_task
from weightlora.train.work import Source


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
    assert result.guess_losses == {"validation": pytest.approx(np.log(2))}


def test_a_line_break_in_a_prompt_may_be_written_as_the_help_does(world: Path, tmp_path: Path):
    job = prepare(parse(family_arguments(world, "sst2-verbalised", tmp_path)))
    data, task = replace(job.recipe.data, prompt=r"Review: {text}\nSentiment:"), find_task("sst2")
    work = verbalised(Source(task, data, read_splits(data, task).rows, job.tokenizer, job.config))
    assert work.train["input_ids"][:] == job.work.train["input_ids"][:]


@pytest.mark.parametrize("more", [[], ["--prompt", "{text}:"], ["--label_words", " bad", " good"]])
def test_both_settings_are_named_where_one_is_missing(world: Path, tmp_path: Path, refused, more: list[str]):
    rows = write_rows(tmp_path / "rows.jsonl", LABELLED)
    given = ["--task", "text-classification", "--model", world / "llama", "--pad_token", "</s>", "--verbalised"]
    assert "give --prompt and --label_words, as in" in refused(*given, *files_of(rows), *more)


def test_a_caller_may_tokenize_the_prompt(world: Path, tmp_path: Path):
    """The benchmark's verbalised workload: prompts of its own, and no position_ids."""
    job = prepare(parse(family_arguments(world, "sst2-verbalised", tmp_path)))
    data, task = job.recipe.data, find_task("sst2")
    source = Source(task, data, read_splits(data, task).rows, job.tokenizer, job.config)
    work = verbalised(source, lambda row: [5, 6, 7], positions=False)
    assert work.train[0]["input_ids"][:3] == [5, 6, 7] and len(work.train[0]["input_ids"]) == 4
    batch = work.collate([work.train[0]])
    assert "position_ids" not in batch and "position_ids" in job.work.collate([job.work.train[0]])
    answer = work.train[0]["labels"][-1]
    logits = torch.zeros(1, 2, 500)
    scores = work.preprocess(logits, batch["labels"])
    assert scores[0].tolist() == pytest.approx([float(np.log(500)), 0, 0])
    found = work.metrics["validation"](EvalPrediction(scores.numpy(), np.array([[-100, answer]])))
    assert found["held_out_loss"] == pytest.approx(np.log(500))
