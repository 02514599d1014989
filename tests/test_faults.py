"""What goes wrong in the middle of a run: it ends in an error that says so, or the run goes on bit for bit."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from kills import AT, CASES
from models import lora_bert
from processes import nursery
from runs import ROUNDS, At, Count, build, outcome, same

from weightlora.adapters import find_adapters
from weightlora.checkpoint import last_whole
from weightlora.state import STATE_FILE, read_state, write_state

WEIGHTS = "adapter_model.safetensors"


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
    done = nursery().run(str(Path(__file__).parent / "kills.py"), str(directory))
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
    assert (f"checkpoint-{AT} is passed over" in caplog.text) == (not rotated)
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
    with pytest.raises(OSError, match=message):
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


DAMAGES = {
    "an edited step": (lambda c: edit(c / STATE_FILE, step_count=2), "was changed after it was written"),
    "edited ranks": (lambda c: edit(c / STATE_FILE, ranks=[]), "was changed after it was written"),
    "a newer version": (
        lambda c: write_state(read_state(c) | {"format": 99}, c),
        "the state has format 99, and this version reads 3: update weightlora",
    ),
    "a short state": (lambda c: os.truncate(c / STATE_FILE, 300), "is not a whole state file"),
    "no state": (lambda c: (c / STATE_FILE).unlink(), "is missing, so this checkpoint is not from a WeightLoRA run"),
    "short weights": (lambda c: os.truncate(c / WEIGHTS, 300), r"adapter_model\.safetensors is cut short"),
    "a short optimizer": (lambda c: os.truncate(c / "optimizer.pt", 300), r"optimizer\.pt is cut short"),
    "an unfinished one": (
        lambda c: (c / "trainer_state.json").unlink(),
        r"trainer_state\.json is missing or cut short",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name_and_passed_over_otherwise(whole, tmp_path, damage, caplog):
    spoil, message = DAMAGES[damage]
    checkpoint = tmp_path / "checkpoint-4"
    for cut in (2, 4):
        shutil.copytree(whole[0] / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    spoil(checkpoint)
    trainer = build(tmp_path, ROUNDS)
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert len(find_adapters(trainer.model)) == 12, "nothing was touched"
    assert last_whole(tmp_path, "checkpoint", "trainer_state.json")[0] == tmp_path / "checkpoint-2"
    assert "checkpoint-4 is passed over" in caplog.text


@pytest.mark.parametrize("file", [STATE_FILE, WEIGHTS])
def test_files_of_two_checkpoints_are_not_mixed(whole, tmp_path, file):
    """PEFT would load what fits of the weights, and leave the rest as it is drawn."""
    checkpoint = shutil.copytree(whole[0] / "checkpoint-4", tmp_path / "checkpoint-4")
    shutil.copy(whole[0] / "checkpoint-7" / file, checkpoint / file)
    trainer = build(tmp_path, ROUNDS)
    with pytest.raises(ValueError, match=r"has other adapters or ranks than weightlora_state\.json beside it"):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    ("settings", "lora", "message"),
    [
        ({"keep": 4}, {}, "saved with keep=3, and the config says 4: resume with the settings of the first run"),
        ({"rounds": 1}, {}, "saved with rounds=2, and the config says 1"),
        ({"seed": 1}, {}, "saved with seed=0, and the config says 1"),
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
