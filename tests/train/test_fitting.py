"""A whole run: training, resuming, the files of its directory, and the held-out loss."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from recipes import arguments, family_arguments
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from weightlora import PrefixCacheCallback
from weightlora.cli import main
from weightlora.errors import DataError
from weightlora.train import fit, parse, prepare
from weightlora.train.fitting import fit as fit_in
from weightlora.train.fitting import load_prepared, make_trainer
from weightlora.train.result import Result, read_result


@pytest.mark.parametrize("method", ["weightlora", "lora", "full"])
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
    file = "model/model.safetensors" if method == "full" else "adapter/adapter_model.safetensors"
    first, second = (load_file(path / file) for path in (tmp_path / "whole", again))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_frozen_prefix_runs_once_for_each_example(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[PrefixCacheCallback] = []

    class Noted(PrefixCacheCallback):
        def __init__(self, **settings):
            super().__init__(**settings)
            made.append(self)

    monkeypatch.setattr("weightlora.train.fitting.PrefixCacheCallback", Noted)
    how = ["--dataset", world / "glue", "--method", "last-layers", "--keep", "1", "--max_steps", "12"]
    results = []
    for name, more in (("plain", []), ("cached", ["--cache_prefix", "--prefix_dropout", "off"])):
        job = prepare(parse(arguments(world, "cola", "deberta", tmp_path / name, *how, *more)))
        job.config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
        results.append(fit(job))
    [callback] = made
    assert callback.cache is not None and (callback.cache.fills, callback.cache.reads) == (6, 6)
    assert results[1].train_loss == pytest.approx(results[0].train_loss, abs=1e-5)
    assert not (tmp_path / "cached" / "_prefix_cache").exists()


def test_sixteen_bits_and_gradient_checkpointing(world: Path, tmp_path: Path):
    more = ["--dataset", world / "glue", "--bf16", "--gradient_checkpointing"]
    result = fit(prepare(parse(arguments(world, "cola", "llama", tmp_path, *more))))
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert any("score" in name for name in tensors)
    assert result.adapters_after == 3


@pytest.mark.usefixtures("no_weights")
def test_checkpoints_of_a_stopped_run_are_not_overwritten(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "checkpoint-1").mkdir()
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta", "--max_steps", "2"]
    for said in ("none is complete, so delete them", "add --resume_from_checkpoint true to continue it"):
        assert main(["train", *map(str, base), "--output_dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert f"has checkpoints of a run that stopped: {said}, or give another --output_dir." in error
        (tmp_path / "checkpoint-1" / "trainer_state.json").touch()


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", ["selection.json", "adapter", "model"])
def test_a_choice_or_an_adapter_is_not_overwritten(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str
):
    (tmp_path / name).mkdir()
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta", "--max_steps", "2"]
    assert main(["train", *map(str, base), "--output_dir", str(tmp_path)]) == 2
    assert f"has {name} of an earlier choice or training: give another --output_dir." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("saves", "again"), [("no", "train again"), ("epoch", "continue with resume_from_checkpoint")]
)
def test_no_room_for_the_adapter_leaves_no_half_of_it(
    world: Path, tmp_path: Path, monkeypatch, saves: str, again: str
):
    """Where the tokenizers library has no room, its error is a bare `Exception`."""
    job = prepare(
        parse(arguments(world, "cola", "deberta", tmp_path, "--dataset", world / "glue", "--save_strategy", saves))
    )
    save = type(job.tokenizer).save_pretrained

    def full(self, folder, *args, **kwargs):
        if "checkpoint-" in str(folder):
            return save(self, folder, *args, **kwargs)
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(type(job.tokenizer), "save_pretrained", full)
    message = rf"written \(No space .*28\); \d+\.\d MB are free\): make it writable with enough room, and {again}\.$"
    with pytest.raises(DataError, match=message):
        fit(job)
    assert not {path.name for path in tmp_path.iterdir()} & {"adapter", "result.json"}


@pytest.mark.usefixtures("no_weights")
def test_an_output_directory_that_cannot_be_made(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "further")
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta", "--max_steps", "2"]
    assert main(["train", *map(str, base), "--output_dir", str(tmp_path / "link")]) == 2
    assert re.search(
        r"link is a link to .*further, which is not there: make that directory, or", capsys.readouterr().err
    )
    assert main(["train", *map(str, base), "--output_dir", ""]) == 2
    assert "--output_dir is missing" in capsys.readouterr().err


TASKS = ("cola", "stsb", "squad", "token-classification", "xsum", "causal-lm", "sst2-verbalised")
OF_THE_TRAINER = {"cola": 1e-6, "stsb": 1e-6, "xsum": 1e-5, "causal-lm": 1e-5}
"""How close the Trainer's own loss is, where it has one without penalties."""


@pytest.mark.parametrize("task", TASKS)
def test_the_held_out_loss_has_no_penalty(world: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch):
    """It is the Trainer's own loss, which is a mean over the same tokens where one batch has all rows."""
    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            seen.append(metrics["validation_loss"])

    given = [*family_arguments(world, task, tmp_path), "--per_device_eval_batch_size", "64"]
    plain = fit(prepare(parse(given)), [Watch()], write=False)
    assert plain.metrics[plain.split]["held_out_loss"] == plain.held_out_loss > 0
    if task in OF_THE_TRAINER:
        assert plain.held_out_loss == pytest.approx(seen[-1], rel=OF_THE_TRAINER[task])
    assert plain.metric_units["held_out_loss"] == "none" and set(plain.metric_units) == set(plain.metrics[plain.split])

    def penalise(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, dict) and output.get("loss") is not None:
            output["loss"] = output["loss"] + 100

    monkeypatch.setattr("weightlora.train.fitting.make_trainer", _penalising(penalise))
    penalised = fit(prepare(parse(given)), write=False)
    assert penalised.held_out_loss == plain.held_out_loss
    assert penalised.train_loss > 50 > plain.train_loss


def _penalising(hook):
    def make(job, model, *more):
        model.register_forward_hook(hook)
        return make_trainer(job, model, *more)

    return make


@pytest.mark.parametrize("task", ["cola", "xsum", "causal-lm"])
def test_the_held_out_loss_is_not_smoothed(world: Path, tmp_path: Path, task: str):
    """The Trainer takes the labels out of a batch to smooth them, and BART would then decode what it encodes."""
    given = [*family_arguments(world, task, tmp_path), "--learning_rate", "0"]
    smoothed = fit(prepare(parse([*given, "--label_smoothing_factor", "0.1"])), write=False)
    plain = fit(prepare(parse(given)), write=False)
    assert smoothed.metrics == plain.metrics
    assert 0 < abs(smoothed.train_loss - plain.train_loss) < 0.5


def test_fit_is_one_function_and_writes_what_it_returns(world: Path, tmp_path: Path):
    assert fit is fit_in
    result = fit(prepare(parse(family_arguments(world, "cola", tmp_path))))
    assert isinstance(result, Result) and read_result(tmp_path / "run") == result
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"adapter", "result.json"}
    assert result.peak_process_bytes > 1e7 and (result.peak_gpu_bytes is None) == (not torch.cuda.is_available())
    assert result.kept == result.names and len(result.sizes) == 13
    assert result.classes == ["unacceptable", "acceptable"]


def test_a_second_training_in_a_directory_is_refused(world: Path, tmp_path: Path):
    """It would change the files of the first one, which would then take the place of its result."""
    given = family_arguments(world, "cola", tmp_path)
    second, first = prepare(parse(given)), prepare(parse(given))
    refused, pushed = [], set()

    class Second(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            names = [path.name for path in Path(args.output_dir).iterdir()]
            pushed.update(filter_repo_objects(names, ignore_patterns=["_*", "checkpoint-*"]))  # as Transformers does
            with pytest.raises(DataError, match=r"another training writes to .*run: wait until it ends"):
                fit(second)
            refused.append(state.global_step)

    assert fit(first, [Second()]).steps == 2 and refused == [1, 2] and pushed == {"began_with.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"adapter", "result.json"}


@pytest.mark.parametrize("task", ["cola", "xsum", "squad"])
def test_rows_are_evaluated_in_order_and_whole_however_they_are_sampled(world: Path, tmp_path: Path, task: str):
    """Answers and summaries are compared with the rows of the file."""
    found = []
    for number, more in enumerate(([], ["--train_sampling_strategy", "group_by_length", "--dataloader_drop_last"])):
        given = family_arguments(world, task, tmp_path / str(number))
        given = [*given, "--per_device_eval_batch_size", "7", *more]
        job = prepare(parse(given))
        trainer = make_trainer(job, load_prepared(job).model, ())
        rows = [row for batch in trainer.get_eval_dataloader() for row in batch["input_ids"].tolist()]
        found.append([[token for token in row if token != job.tokenizer.pad_token_id] for row in rows])
        assert trainer.args.dataloader_drop_last == bool(more) and type(trainer).__name__ in {
            "Trainer",
            "Seq2SeqTrainer",
        }
    assert found[0] == found[1] and len(found[0]) % 7
