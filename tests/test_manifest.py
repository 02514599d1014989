"""The manifest lists what resuming needs. What each damage of a checkpoint leads to: tests/test_faults.py."""

import json
import os

import pytest

from weightlora.errors import StateError
from weightlora.manifest import MANIFEST, check_manifest, remove_manifest, write_manifest


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "other").mkdir()
    for name in (
        "adapter_model.safetensors",
        "optimizer.pt",
        "other/adapter_model.safetensors",
        "README.md",
        ".hidden",
        "checkpoint-is-incomplete.txt",
    ):
        (tmp_path / name).write_bytes(name.encode() * 3)
    (tmp_path / "empty.json").touch()
    write_manifest(tmp_path, step=3)
    (tmp_path / "checkpoint-is-incomplete.txt").unlink()  # as Transformers does
    return tmp_path


def test_it_lists_all_but_cards_and_hidden_files(checkpoint):
    manifest = check_manifest(checkpoint)
    names = {"adapter_model.safetensors", "optimizer.pt", "other/adapter_model.safetensors", "empty.json"}
    assert manifest.files.keys() == names and manifest.step == 3 and manifest.has_optimizer
    assert manifest.files["empty.json"][0] == 0
    write_manifest(checkpoint, step=4)
    assert check_manifest(checkpoint).files == manifest.files, "it does not list itself"


def test_files_that_no_trainer_loads_may_come_and_go(checkpoint):
    (checkpoint / "README.md").write_text("another card")
    (checkpoint / "metrics.json").write_text("{}")
    check_manifest(checkpoint)
    for name in ("scaler.pt", "rng_state_1.pth", "model.safetensors", "new/adapter_model.bin"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).touch()
        with pytest.raises(StateError, match="was added later, and would be loaded"):
            check_manifest(checkpoint)
        (checkpoint / name).unlink()


def test_a_pipe_in_place_of_a_file_does_not_stop_the_reader(checkpoint):
    (checkpoint / "optimizer.pt").unlink()
    os.mkfifo(checkpoint / "optimizer.pt")
    with pytest.raises(StateError, match=r"optimizer\.pt is missing"):
        check_manifest(checkpoint)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other", "a/../../b", "", "a\0b"])
def test_no_file_outside_the_checkpoint_is_read(checkpoint, name):
    content = json.loads((checkpoint / MANIFEST).read_text())
    content["files"][name] = {"size": 1, "sha256": "0"}
    (checkpoint / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(StateError, match="which is not a file of the checkpoint"):
        check_manifest(checkpoint)


def test_a_checkpoint_that_is_written_anew_is_not_whole_until_the_end(checkpoint):
    remove_manifest(checkpoint)
    left = {path.name for path in checkpoint.iterdir()}
    assert left == {"other", "README.md", ".hidden", "empty.json"}
    with pytest.raises(StateError, match=r"weightlora_manifest\.json is missing"):
        check_manifest(checkpoint)
    remove_manifest(checkpoint / "nothing")


def test_directories_and_links_in_the_places_of_files_make_room(checkpoint):
    """A broken checkpoint that a run comes to again. Directories that an engine writes stay."""
    for name in (MANIFEST, "optimizer.pt"):
        (checkpoint / name).unlink()
        (checkpoint / name / "inside").mkdir(parents=True)
    (checkpoint / "scheduler.pt").unlink(missing_ok=True)
    (checkpoint / "scheduler.pt").symlink_to("nowhere")
    (checkpoint / "global_step2").mkdir()
    (checkpoint / "ref").mkdir()  # an earlier run's adapter, which a Trainer would load
    (checkpoint / "ref" / "adapter_config.json").touch()
    remove_manifest(checkpoint)
    assert {path.name for path in checkpoint.iterdir()} == {
        "other",
        "README.md",
        ".hidden",
        "empty.json",
        "global_step2",
    }
