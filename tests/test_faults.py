"""What goes wrong in the middle of a run: it ends in an error that says so, or the run goes on bit for bit."""

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from damages import flip, of_another, zero
from kills import AT, CASES
from models import lora_bert
from processes import fork_server
from runs import ROUNDS, At, Count, build, outcome, same
from safetensors.torch import load_file, save_file
from transformers import Trainer

from weightlora import WeightLoraTrainer, restore
from weightlora.adapters import find_adapters
from weightlora.errors import DataError, StateError
from weightlora.manifest import MANIFEST, write_manifest
from weightlora.state import STATE_FILE, read_state, write_state
from weightlora.trainers.resuming import last_checkpoint

WEIGHTS, TRAINER_STATE = "adapter_model.safetensors", "trainer_state.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to: its directory and what it ends in."""
    directory = tmp_path_factory.mktemp("whole")
    trainer = build(directory, ROUNDS)
    trainer.train()
    return directory, outcome(trainer)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("killed")
    done = fork_server().run(str(Path(__file__).parent / "kills.py"), str(directory))
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_kill_9_while_a_checkpoint_is_written(whole, killed, case, caplog):
    steps = []
    trainer = build(killed / case, ROUNDS, Count(steps))
    trainer.train(resume_from_checkpoint=True)
    same(outcome(trainer), whole[1])
    rotated = "older checkpoints" in case  # then this one was whole
    assert steps[0] == (AT + 1 if rotated else AT)
    assert (f"checkpoint-{AT} is skipped" in caplog.text) == (not rotated)
    assert not list((killed / case).rglob("*.partial"))


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of its own, of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


# The files of a checkpoint have 7 to 26 KB; ours comes first, then the weights, then the optimizer.
@pytest.mark.parametrize(("left", "there"), [(0, None), (24, STATE_FILE), (48, "adapter_model.safetensors")])
def test_a_full_disk_ends_the_run_and_the_earlier_checkpoint_goes_on(whole, tiny_disk, left, there):
    ballast = tiny_disk / "ballast"

    def fill(**_):
        ballast.write_bytes(bytes(shutil.disk_usage(tiny_disk).free - left * 1024))

    trainer = build(tiny_disk, ROUNDS, At(4, fill), save_total_limit=1)
    message = (
        r"checkpoint-4 could not be written, with 0\.0 MB free there .*: earlier checkpoints are complete, so make"
    )
    with pytest.raises(DataError, match=message):
        trainer.train()
    assert trainer.state.global_step == 4
    assert there is None or (tiny_disk / "checkpoint-4" / there).is_file()
    ballast.unlink()
    trainer = build(tiny_disk, ROUNDS)
    trainer.train(resume_from_checkpoint=True)
    same(outcome(trainer), whole[1])


def edit(path, **changes):
    content = json.loads(path.read_text())
    content["state"].update(changes)
    path.write_text(json.dumps(content))


def a_base_weight(path):
    tensors = load_file(path)
    tensors["base_model.model.bert.embeddings.word_embeddings.weight"] = torch.zeros(50, 32)
    save_file(tensors, path)


CHANGED = r"was changed after it was written \(its checksum differs\)|bytes, and had"
BROKEN_MANIFEST = r"weightlora_manifest\.json (is not a list of files|is not whole JSON|lists|has)"
FILES = [STATE_FILE, WEIGHTS, "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", TRAINER_STATE]
DAMAGES = {
    **{f"a flipped bit in {f}": (lambda f=f: (f, flip), CHANGED) for f in FILES},
    **{f"no {f}": (lambda f=f: (f, Path.unlink), "is missing") for f in (*FILES, MANIFEST)},
    **{f"{f} of another checkpoint": (lambda f=f: (f, of_another), CHANGED) for f in FILES if "config" not in f},
    "another manifest": (lambda: (MANIFEST, of_another), CHANGED),
    "a zeroed tail": (lambda: (WEIGHTS, zero), CHANGED),
    "a zeroed manifest": (lambda: (MANIFEST, zero, 0), BROKEN_MANIFEST),
    "a short manifest": (lambda: (MANIFEST, os.truncate, 300), BROKEN_MANIFEST),
    "a base weight": (lambda: (WEIGHTS, a_base_weight), CHANGED),
    "a null": (lambda: (TRAINER_STATE, Path.write_text, "null"), CHANGED),
    "a deep state": (lambda: (STATE_FILE, Path.write_text, "[" * 100_000), CHANGED),
    "a deep manifest": (lambda: (MANIFEST, Path.write_text, "[" * 100_000), BROKEN_MANIFEST),
    "a list": (lambda: (MANIFEST, Path.write_text, "[]"), BROKEN_MANIFEST),
    "no list of files": (
        lambda: (MANIFEST, Path.write_text, '{"format": 1, "step": 4, "files": [1]}'),
        BROKEN_MANIFEST,
    ),
    "no files": (lambda: (MANIFEST, Path.write_text, '{"format": 1, "step": 4, "files": {}}'), BROKEN_MANIFEST),
    "a file from elsewhere": (
        lambda: (MANIFEST, Path.write_text, '{"format": 1, "step": 4, "files": {"../x": {"size": 1, "sha256": ""}}}'),
        BROKEN_MANIFEST,
    ),
    "a manifest of a newer version": (lambda: (MANIFEST, Path.write_text, '{"format": 2}'), BROKEN_MANIFEST),
    "one more file": (lambda: ("scaler.pt", Path.write_bytes, b"x"), "was added later, and would be loaded"),
    "a file in place of the checkpoint": (
        lambda: ("", lambda path: (shutil.rmtree(path), path.write_text("x"))),
        "is not a directory",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name_and_passed_over_otherwise(whole, tmp_path, damage, caplog):
    spoil, message = DAMAGES[damage]
    checkpoint = tmp_path / "checkpoint-4"
    for cut in (2, 4):
        shutil.copytree(whole[0] / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    file, function, *arguments = spoil()
    function(checkpoint / file, *arguments)
    steps = []
    trainer = build(tmp_path, ROUNDS, Count(steps))
    weights = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(StateError, match=message):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert len(find_adapters(trainer.model)) == 12, "nothing was touched"
    assert all(torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items())
    assert last_checkpoint(tmp_path)[0] == tmp_path / "checkpoint-2"
    assert "checkpoint-4 is skipped" in caplog.text and not steps


def test_only_what_a_trainer_calls_a_checkpoint_is_one(whole, tmp_path):
    for name in ("checkpoint-2", "checkpoint-²", "checkpoint-٧", "checkpoint-07", "checkpoint-best-7", "checkpoint-"):
        shutil.copytree(whole[0] / f"checkpoint-{2 if name[-1] == '2' else 7}", tmp_path / name)
    shutil.copytree(whole[0] / "checkpoint-7", tmp_path / "checkpoint-9")  # whole, and of an earlier step
    assert last_checkpoint(tmp_path)[0] == tmp_path / "checkpoint-2"


def signed(checkpoint, **changes):
    """The state is edited, and its checksum and the manifest are those of the edited one."""
    write_state(read_state(checkpoint) | changes, checkpoint)
    write_manifest(checkpoint, step=int(checkpoint.name.rpartition("-")[2]))


def of_step(checkpoint, step):
    content = json.loads((checkpoint / TRAINER_STATE).read_text())
    (checkpoint / TRAINER_STATE).write_text(json.dumps(content | {"global_step": step}))
    write_manifest(checkpoint, 4)


def with_state(content):
    def write(checkpoint):
        (checkpoint / TRAINER_STATE).write_text(content)
        write_manifest(checkpoint, 4)

    return write


SIGNED = {
    "another step of the selection": (lambda c: signed(c, step_count=3), "selection in .* is at step 3, and the trai"),
    "another step of the training": (lambda c: of_step(c, 5), "state in .* is of step 5, and its manifest of step 4"),
    "no step": (lambda c: of_step(c, "4"), "has global_step='4', and it must be a step"),
    "null": (with_state("null"), "of another version of Transformers"),
    "deep": (with_state("[" * 100_000), "of another version of Transformers"),
    "a field that this version does not have": (with_state('{"later": 1}'), "of another version of Transformers"),
}


@pytest.mark.parametrize("case", SIGNED)
def test_what_does_not_go_together_is_refused_even_under_a_new_manifest(whole, tmp_path, case):
    spoil, message = SIGNED[case]
    checkpoint = shutil.copytree(whole[0] / "checkpoint-4", tmp_path / "checkpoint-4")
    spoil(checkpoint)
    trainer = build(tmp_path, ROUNDS)
    with pytest.raises(StateError, match=message):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert len(find_adapters(trainer.model)) == 12 and trainer.optimizer is None


@pytest.mark.parametrize("file", [STATE_FILE, WEIGHTS])
def test_files_of_two_checkpoints_are_not_mixed(whole, tmp_path, file):
    """PEFT would load what fits of the weights, and leave the rest as it is drawn."""
    checkpoint = shutil.copytree(whole[0] / "checkpoint-4", tmp_path / "checkpoint-4")
    shutil.copy(whole[0] / "checkpoint-7" / file, checkpoint / file)
    model = lora_bert()
    with pytest.raises(StateError, match="bytes, and had"):
        restore(model, checkpoint)
    (checkpoint / MANIFEST).unlink()  # as after write_state in your own loop
    with pytest.raises(StateError, match=r"has other adapters or ranks than weightlora_state\.json beside it"):
        restore(lora_bert(), checkpoint)
    assert len(find_adapters(model)) == 12


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: os.truncate(path, 300), "is damaged"),
        (lambda path: path.write_bytes(bytes(1000)), "is damaged"),
        (a_base_weight, "word_embeddings.weight' is not the same in both"),
    ],
)
def test_weights_of_a_loop_are_checked_as_far_as_can_be_seen(whole, tmp_path, spoil, message):
    checkpoint = shutil.copytree(whole[0] / "checkpoint-4", tmp_path / "checkpoint-4")
    (checkpoint / MANIFEST).unlink()
    spoil(checkpoint / WEIGHTS)
    with pytest.raises(StateError, match=message):
        restore(lora_bert(), checkpoint)


@pytest.mark.parametrize("kind", [WeightLoraTrainer, Trainer])
def test_a_checkpoint_of_the_model_alone_is_said_to_be_one(tmp_path, kind, caplog):
    build(tmp_path, ROUNDS, kind=kind, save_only_model=True).train()
    build(tmp_path, ROUNDS, kind=kind).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert "checkpoint-4 has no state of optimizer, scheduler and random numbers (save_only_model=True)" in caplog.text


def test_what_an_earlier_run_left_is_no_part_of_a_checkpoint(whole, tmp_path):
    shutil.copytree(whole[0] / "checkpoint-4", tmp_path / "checkpoint-4")
    build(tmp_path, ROUNDS, save_only_model=True).train()
    assert not (tmp_path / "checkpoint-4" / "optimizer.pt").exists()


@pytest.mark.parametrize("kind", [WeightLoraTrainer, Trainer])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_finished_run_stays_finished(tmp_path, kind, accumulation, caplog):
    """Its last step is in the middle of an epoch, and it was killed after its last checkpoint."""
    settings = {"kind": kind, "max_steps": 7 if accumulation == 1 else 4, "gradient_accumulation_steps": accumulation}
    first = build(tmp_path, ROUNDS | {"select_steps": 3}, **settings)
    first.train()
    last, steps = first.state.global_step, []
    assert first.state.epoch != int(first.state.epoch)
    again = build(tmp_path, ROUNDS | {"select_steps": 3}, Count(steps), **settings)
    again.train(resume_from_checkpoint=True)
    assert not steps and again.state.global_step == last
    assert f"the checkpoint is of step {last} of {last}: the run is finished" in caplog.text
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert again.state.epoch == first.state.epoch

    longer = build(tmp_path, ROUNDS | {"select_steps": 3}, Count(steps), **settings | {"max_steps": last + 2})
    longer.train(resume_from_checkpoint=True)
    assert steps == [last + 1, last + 2]


@pytest.mark.parametrize(
    ("settings", "lora", "message"),
    [
        ({"keep": 4}, {}, "saved with keep=3, and the config says 4: resume with the settings of the first run"),
        ({}, {"layers": 3}, "the state is of 12 adapters, and this model has 18"),
        ({}, {"r": 2}, "has rank 2 and 64 parameters, and had rank 4 and 128 when the run began"),
        ({}, {"r": 8}, "has rank 8 and 256 parameters, and had rank 4 and 128 when the run began"),
        ({}, {"target_modules": ["query", "value"]}, "the state is of 12 adapters, and this model has 4"),
        ({}, {"lora_bias": True}, "has rank 4 and 144 parameters, and had rank 4 and 128 when the run began"),
    ],
)
@pytest.mark.parametrize("cut", [1, 7])
def test_other_settings_and_other_models_are_refused_untouched(whole, tmp_path, settings, lora, message, cut):
    model = lora_bert(**lora)
    n = len(find_adapters(model))
    trainer = build(tmp_path, ROUNDS | settings, model=model)
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(whole[0] / f"checkpoint-{cut}"))
    assert len(find_adapters(model)) == n and trainer.optimizer is None
    assert all(not adapter.factors[1].any() for adapter in find_adapters(model)), "no weight was loaded"
