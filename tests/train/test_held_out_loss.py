"""`held_out_loss` of every family: the task's loss, whatever a method adds to the training loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import BAD, GOOD, write_parquet
from torch import nn
from transformers import EvalPrediction, TrainerCallback

from weightlora.train import fit, parse, prepare
from weightlora.train.families.answering import span_loss
from weightlora.train.fitting import fit as fit_in
from weightlora.train.result import Result, read_result

QUICK = ["--max_steps", "2", "--select_steps", "2", "--max_length", "64", "--use_cpu", "--save_strategy", "no"]
QUICK += ["--per_device_train_batch_size", "4", "--method", "lora", "--logging_strategy", "no"]
MODELS = {"xsum": "bart", "causal-lm": "llama", "sst2-verbalised": "llama"}
TASKS = ("cola", "stsb", "squad", "token-classification", "xsum", "causal-lm", "sst2-verbalised")


def arguments(world: Path, task: str, output: Path) -> list[str]:
    name, model = task.split("-verbalised")[0], MODELS.get(task, "deberta")
    data: list[object] = ["--dataset", world / ("glue" if name in {"cola", "stsb", "sst2"} else name)]
    if name in {"token-classification", "causal-lm"}:
        rows = [{"tokens": ["Ann", "made", "films"], "tags": ["PER", "O", "O"], "text": t} for t in (GOOD, BAD)] * 4
        write_parquet(output / "rows.parquet", rows)
        data = ["--train_file", output / "rows.parquet", "--validation_file", output / "rows.parquet"]
    more = {"squad": ["--stride", 16], "xsum": ["--max_target_length", 8]}.get(name, [])
    more += ["--pad_token", "</s>"] if model == "llama" else []
    more += ["--verbalised"] if task.endswith("verbalised") else []
    given = ["--task", name, "--model", world / model, "--output_dir", output / "run", *data, *more, *QUICK]
    return list(map(str, given))


@pytest.mark.parametrize("task", TASKS)
def test_a_penalty_is_not_in_it(world: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch):
    job = prepare(parse(arguments(world, task, tmp_path)))
    plain = fit(job, write=False)
    assert plain.metrics[plain.split]["held_out_loss"] == plain.held_out_loss > 0
    assert plain.metric_units["held_out_loss"] == "none" and set(plain.metric_units) == set(plain.metrics[plain.split])

    def penalise(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, dict) and output.get("loss") is not None:
            output["loss"] = output["loss"] + 100

    monkeypatch.setattr("weightlora.train.fitting._trainer", _penalising(penalise))
    penalised = fit(prepare(parse(arguments(world, task, tmp_path))), write=False)
    assert penalised.held_out_loss == plain.held_out_loss
    assert penalised.train_loss > 50 > plain.train_loss


def _penalising(hook):
    from weightlora.train.fitting import _trainer

    def make(job, model, callbacks):
        model.register_forward_hook(hook)
        return _trainer(job, model, callbacks)

    return make


@pytest.mark.parametrize(("task", "tolerance"), [("cola", 1e-6), ("stsb", 1e-6), ("xsum", 1e-5), ("causal-lm", 1e-5)])
def test_without_a_penalty_it_is_the_loss_that_is_trained_on(world: Path, tmp_path: Path, task: str, tolerance: float):
    """One batch for all rows, so that the Trainer's loss is a mean over the same tokens."""
    given = [*arguments(world, task, tmp_path), "--per_device_eval_batch_size", "64"]
    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            seen.append(metrics["validation_loss"])

    result = fit(prepare(parse(given)), [Watch()], write=False)
    assert result.held_out_loss == pytest.approx(seen[-1], rel=tolerance)


def test_spans_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25, 9.0], [0.1, 0.2, 0.3, 0.4]]))
    lengths = [3, 4]  # the last column of the first window is padding
    loss = span_loss((logits, logits), ([0, 3], [1, 0]), lengths)
    assert loss == pytest.approx(-(np.log([0.5, 0.4]).mean() + np.log([0.25, 0.1]).mean()) / 2)


def test_fit_is_one_function_and_writes_what_it_returns(world: Path, tmp_path: Path):
    assert fit is fit_in
    result = fit(prepare(parse(arguments(world, "cola", tmp_path))))
    assert isinstance(result, Result) and read_result(tmp_path / "run") == result
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"adapter", "result.json"}
    assert result.peak_process_bytes > 1e7 and (result.peak_gpu_bytes is None) == (not torch.cuda.is_available())
    assert result.kept == result.names and len(result.sizes) == 13


def test_inputs_may_be_padded_to_max_length(world: Path, tmp_path: Path):
    for task in ("cola", "squad", "token-classification", "causal-lm", "sst2-verbalised"):
        work = prepare(parse([*arguments(world, task, tmp_path), "--pad_to_max_length"])).work
        batch = work.collate([work.train[i] for i in range(2)])
        assert batch["input_ids"].shape == (2, 64), task


def test_texts_may_be_packed_into_blocks(world: Path, tmp_path: Path):
    given = [*arguments(world, "causal-lm", tmp_path), "--packing", "--max_length", "16"]
    job = prepare(parse(given))
    tokenizer, rows = job.tokenizer, [GOOD, BAD] * 4
    stream = [token for text in rows for token in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    assert [row["input_ids"] for row in job.work.train] == [stream[i : i + 16] for i in range(0, len(stream) - 15, 16)]
    found = fit(job, write=False).metrics["validation"]
    assert found["perplexity"] == pytest.approx(np.exp(found["held_out_loss"]))


def test_a_caller_may_tokenize_the_prompt(world: Path, tmp_path: Path):
    """The benchmark's verbalised workload: prompts of its own, and no position_ids."""
    from weightlora.train.data import read_splits
    from weightlora.train.families.verbalised import verbalised
    from weightlora.train.tasks import find_task
    from weightlora.train.work import Source

    job = prepare(parse(arguments(world, "sst2-verbalised", tmp_path)))
    data, task = job.recipe.data, find_task("sst2")
    source = Source(task, data, read_splits(data, task), job.tokenizer, job.config)
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
