"""Checkpoints of a Trainer: which step they are of, when the manifest is written, and when a run is finished."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import transformers
from packaging.version import Version
from processes import launch, outcomes
from runs import build
from transformers import Trainer, TrainerState, TrainingArguments

from weightlora import WeightLoraTrainer
from weightlora.errors import StateError
from weightlora.manifest import MANIFEST, check_manifest, write_manifest
from weightlora.state import STATE_FILE
from weightlora.trainers import resuming
from weightlora.trainers.resuming import (
    TRAINER_STATE_NAME,
    check_fits,
    check_places,
    manifest_last,
    read_checkpoint,
    stay_finished,
    step_of,
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "is missing, damaged, or of another version of Transformers"),
        ("[" * 10**5, "is missing, damaged, or of another version of Transformers"),
        ('{"unheard_of": 1}', "is missing, damaged, or of another version of Transformers"),
        ('{"global_step": "7"}', "has global_step='7', and it must be a step"),
        ('{"global_step": 7.0}', "has global_step=7.0, and it must be a step"),
        ('{"global_step": -1}', "has global_step=-1, and it must be a step"),
        ('{"total_flos": null}', "has total_flos=None, and it must be a number from 0 to 1e100"),
        ('{"epoch": true}', "has epoch=True, and it must be a number from 0 to 1e100, or null"),
        ('{"epoch": NaN}', "has epoch=nan, and it must be a number from 0 to 1e100"),
        ('{"save_steps": "7"}', "has save_steps='7', and it must be a number from 0 to 1e100"),
        ('{"train_batch_size": []}', "has train_batch_size=\\[\\], and it must be a number of rows"),
        ('{"train_batch_size": null}', "has train_batch_size=None, and it must be a number of rows"),
        ('{"best_metric": "x"}', "has best_metric='x', and it must be a number, or null"),
        ('{"best_model_checkpoint": 3}', "has best_model_checkpoint=3, and it must be a path, or null"),
        ('{"log_history": [3]}', "has log_history=\\[3\\], and it must be a list of entries"),
    ],
)
def test_a_trainers_state_that_cannot_be_read_is_named(tmp_path, content, message):
    with pytest.raises(StateError, match="is missing, damaged"):
        step_of(tmp_path)
    (tmp_path / TRAINER_STATE_NAME).write_text(content)
    with pytest.raises(StateError, match=message):
        step_of(tmp_path)


@pytest.mark.parametrize("kind", [WeightLoraTrainer, Trainer])
def test_an_accelerate_that_forgets_the_optimizer_of_fsdp2_is_refused(tmp_path, monkeypatch, kind):
    """1.7 went on without the moments; 1.10 to 1.14 ended in a KeyError of PEFT."""
    trainer = build(tmp_path, {}, kind=kind)
    monkeypatch.setattr(resuming, "compare_versions", lambda name, sign, version: (name, sign) == ("accelerate", "<"))
    for version in (1, 2):
        plugin = SimpleNamespace(fsdp_version=version)
        monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", plugin, raising=False)
        with pytest.raises((StateError, ValueError)) as caught:
            trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
        assert ("install accelerate 1.15 or newer" in str(caught.value)) == (version == 2)


def test_a_directory_that_is_no_checkpoint_is_not_called_a_broken_one(tmp_path):
    message = (
        "has no trainer_state.json, so it is not a checkpoint, or was cut short while it was written: name another"
    )
    with pytest.raises(StateError, match=message):
        read_checkpoint(tmp_path)
    for name in ("checkpoint-12", "checkpoint-3", "checkpoint-best"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        with pytest.raises(
            StateError, match=r"is not a checkpoint\. It holds checkpoint-3, checkpoint-12: name one of them, or"
        ):
            read_checkpoint(tmp_path)
        (tmp_path / TRAINER_STATE_NAME).write_text("{}")  # trainer.save_state()
    (tmp_path / "checkpoint-3" / STATE_FILE).write_text("{}")  # which comes first
    with pytest.raises(StateError, match="is missing, so this checkpoint was cut short"):
        read_checkpoint(tmp_path / "checkpoint-3")


def test_the_manifest_comes_right_after_the_trainers_last_file(tmp_path):
    (tmp_path / "optimizer.pt").write_bytes(b"1")
    state = TrainerState(global_step=3)
    with manifest_last(SimpleNamespace(state=state), tmp_path):
        assert not (tmp_path / MANIFEST).exists()
        state.save_to_json(str(tmp_path / TRAINER_STATE_NAME))
        manifest = check_manifest(tmp_path)
    assert manifest.step == 3 and set(manifest.files) == {"optimizer.pt", TRAINER_STATE_NAME}
    assert "save_to_json" not in vars(state)


# Before 5.18, a Trainer reads the optimizer's state to "cpu:0" under DDP on CPUs, which PyTorch does not know.
@pytest.mark.skipif(Version(transformers.__version__) < Version("5.18"), reason="needs Transformers 5.18")
@pytest.mark.slow
def test_the_manifest_lists_the_files_of_all_processes_and_all_resume_from_one_checkpoint(tmp_path):
    launch("checkpoints", 2, str(tmp_path))
    for kind in ("mixin", "plain"):
        for step in (1, 2, 3):
            manifest = check_manifest(tmp_path / kind / f"checkpoint-{step}")
            assert manifest.step == step and manifest.files.keys() > {"rng_state_0.pth", "rng_state_1.pth"}
    whole, broken = outcomes(tmp_path, 2)
    for found in (whole, broken):
        assert found["mixin"] == found["plain"] == 3
        assert "would resume from different checkpoints (checkpoint-1, checkpoint-" in found["apart"]
    for case in ("mixin True", "mixin False", "plain True", "plain False"):  # whether it was to find the newest one
        assert broken[case].startswith("StateError: "), case
        assert whole[case].startswith("TrainingError: process 1 failed in reading the checkpoint"), case


@pytest.mark.parametrize(
    ("files", "fsdp", "message"),
    [
        (
            ["optimizer.pt"],
            True,
            "was written without FSDP, and this training runs with it, .*: resume without FSDP.$",
        ),
        (["optimizer.bin"], False, "was written with FSDP, and this training runs without it, .*: resume with FSDP.$"),
        (["optimizer_0/a.distcp"], False, "was written with FSDP"),
        (["optimizer.pt"], False, None),
        (["optimizer.bin"], True, None),
        (["adapter_model.safetensors"], True, None),  # save_only_model
    ],
)
def test_a_checkpoint_of_fsdp_is_resumed_with_it_and_others_without(files, fsdp, message, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / TRAINER_STATE_NAME).write_text("{}")
    args = TrainingArguments(str(tmp_path / "run"), logging_strategy="no")
    trainer = SimpleNamespace(is_fsdp_enabled=fsdp, is_deepspeed_enabled=False, args=args)
    with nullcontext() if message is None else pytest.raises(StateError, match=message):
        check_fits(trainer, tmp_path)


@pytest.mark.parametrize("kind", [WeightLoraTrainer, Trainer])
@pytest.mark.parametrize("name", ["logging_steps", "eval_steps"])
def test_an_interval_of_zero_that_the_checkpoint_brings_is_refused(tmp_path, name, kind):
    """A Trainer takes it over, and ended in a ZeroDivisionError after its first step."""
    trainer = build(tmp_path, {}, kind=kind, max_steps=3, save_steps=1)
    trainer.train()
    state = (checkpoint := tmp_path / "checkpoint-1") / TRAINER_STATE_NAME
    state.write_text(json.dumps({**json.loads(state.read_text()), name: 0}))
    write_manifest(checkpoint, 1)
    strategy = name.replace("steps", "strategy")
    for given in ({strategy: "no"}, {strategy: "steps", name: 2}):
        other = build(tmp_path, {}, kind=kind, max_steps=3, save_steps=1, **given)
        message = f"checkpoint-1 has {name}=0, which replaces {name}=2: set {strategy}='no', or resume from another"
        with nullcontext() if given[strategy] == "no" else pytest.raises(StateError, match=message):
            other.train(str(checkpoint))
            assert other.state.global_step == 3


@pytest.mark.parametrize(
    ("step", "most", "finished"), [(30, 30, True), (31, 30, True), (29, 30, False), (5, 0, False)]
)
def test_a_finished_run_gets_no_batches(step, most, finished):
    trainer = SimpleNamespace(
        state=SimpleNamespace(global_step=step, max_steps=most), get_batch_samples=lambda *_: (["batch"], 8)
    )
    assert stay_finished(trainer) is finished
    assert trainer.get_batch_samples() == (([], None) if finished else (["batch"], 8))
    trainer.state.global_step = 0
    assert trainer.get_batch_samples() == (["batch"], 8), "another training of the same Trainer"


def test_a_file_where_a_checkpoint_is_to_be_is_found_before_the_first_step(tmp_path):
    """Otherwise the run ends when it comes to the step."""
    for name in ("checkpoint-2", "checkpoint-best", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-notes").write_text("x")
    check_places(tmp_path, 0)
    (tmp_path / "checkpoint-2" / "optimizer.pt").mkdir()
    check_places(tmp_path, 2)
    with pytest.raises(StateError, match=r"checkpoint-2/optimizer\.pt is not a file, and one may have to be written"):
        check_places(tmp_path, 1)
    (tmp_path / "checkpoint-2" / "optimizer.pt").rmdir()
    (tmp_path / "checkpoint-4").write_text("x")
    with pytest.raises(StateError, match="checkpoint-4 is not a directory, and a checkpoint may have to be written"):
        check_places(tmp_path, 0)
    trainer = build(tmp_path, {"keep": 3, "select_steps": 3})
    with pytest.raises(StateError, match="checkpoint-4 is not a directory"):
        trainer.train()
    assert trainer.state.global_step == 0
