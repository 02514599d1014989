"""Checkpoints that were damaged: refused in one sentence, or the run ends bit for bit as it would have."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from damages import flip, of_another, zero
from fuzzing import ODD, damaged, fuzz, outcome_of, values
from hypothesis import given
from hypothesis import strategies as st
from models import lora_bert
from peft import set_peft_model_state_dict
from runs import ROUNDS, Count, build, outcome, same
from safetensors.torch import load_file

from weightlora import restore
from weightlora.adapters import find_adapters
from weightlora.manifest import MANIFEST, write_manifest

WEIGHTS = "adapter_model.safetensors"
GATES = {"keep": 3, "select_steps": 6, "selection": "stoiht", "omega_lr": 2.0, "warmup_steps": 2, "expand": "qr"}
RUNS = {"credit in rounds, growing": ROUNDS, "gates, growing": GATES}
CUTS = (3, 4, 6, 7)
KINDS = ["bits", "zeros", "cut short", "bytes", "a neighbour's", "swapped", "gone", "renamed", "another kind", "added"]
KINDS += ["JSON", "the directory"]
NAMES = [
    "optimizer.bin",
    "scaler.pt",
    "model.safetensors",
    "rng_state_0.pth",
    "pytorch_model.bin",
    "README.md",
    "notes",
]


@dataclass(frozen=True)
class Whole:
    """A run that nothing happened to."""

    directory: Path
    settings: dict[str, Any]
    end: Any = field(repr=False)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Whole]]:
    found = {}
    for run, settings in RUNS.items():
        trainer = build(tmp_path_factory.mktemp("whole"), settings)
        trainer.train()
        found[run] = Whole(Path(trainer.args.output_dir), settings, outcome(trainer))
    yield found
    for whole in found.values():
        shutil.rmtree(whole.directory)


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, list[Callable[[Path], object]]]:
    """The kind of a damage, and functions of the checkpoint that do it."""
    kind = draw(st.sampled_from(KINDS))
    return f"checkpoint: {kind}", [draw(_damage(kind)) for _ in range(draw(st.integers(1, 2)))]


@st.composite
def _damage(draw: st.DrawFn, kind: str) -> Callable[[Path], object]:
    place, other = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    share, bit, text = draw(st.floats(0, 0.999)), draw(st.integers(0, 7)), draw(st.sampled_from(ODD) | st.text())
    name = draw(st.sampled_from(NAMES))
    neighbour = draw(st.sampled_from(["checkpoint-1", "checkpoint-2"]))
    # One of the ways below, for the files differ from run to run.
    way = draw(st.integers(0, 3))
    value = draw(values) if kind == "JSON" else None
    changed = draw(st.data()) if kind == "bytes" else None

    def spoil(checkpoint: Path) -> object:
        files = sorted(path for path in checkpoint.iterdir() if path.is_file())
        path, second = (files[min(int(where * len(files)), len(files) - 1)] for where in (place, other))
        if kind == "bits" and path.stat().st_size:
            flip(path, share, bit)
        elif kind == "zeros":
            zero(path, share)
        elif kind == "cut short":
            os.truncate(path, int(share * path.stat().st_size))
        elif kind == "bytes":
            path.write_bytes(changed.draw(damaged(path.read_bytes())))
        elif kind == "a neighbour's" and (path.parent.with_name(neighbour) / path.name).is_file():
            of_another(path, neighbour)
        elif kind == "swapped":
            content = path.read_bytes()
            path.write_bytes(second.read_bytes())
            second.write_bytes(content)
        elif kind == "gone":
            path.unlink()
        elif kind == "renamed":
            path.rename(path.with_name(name))
        elif kind == "another kind":
            path.unlink()
            [path.mkdir, lambda: path.symlink_to("nowhere"), lambda: path.symlink_to(path), path.touch][way]()
        elif kind == "added":
            inside = checkpoint / ("more" if way == 3 else "")
            inside.mkdir(exist_ok=True)
            (inside / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        elif kind == "JSON":
            _edit(checkpoint / [MANIFEST, "trainer_state.json", "adapter_config.json", MANIFEST][way], share, value)
        elif kind == "the directory" and way == 3:
            shutil.rmtree(checkpoint)
            checkpoint.write_text(text.encode("utf-8", "replace").decode())
        elif kind == "the directory":
            for one in files[: int(place * len(files))]:  # as if deleting it had been interrupted
                one.unlink()
        return None

    return spoil


def _edit(path: Path, share: float, value: Any) -> None:
    """Put a value in some place of a JSON file."""
    content = where = json.loads(path.read_text())
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = keys[int(share * len(keys))]
        if not (isinstance(where[key], dict | list) and where[key]):
            break
        where, share = where[key], share * len(keys) % 1
    where[key] = value
    path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))


@given(st.data())
@fuzz(20)
def test_damaged_checkpoints_are_refused_or_continued_bit_for_bit(wholes: dict[str, Whole], data: st.DataObject):
    whole = wholes[data.draw(st.sampled_from(sorted(RUNS)))]
    cut = data.draw(st.sampled_from(CUTS))
    kind, functions = data.draw(damages())
    way = data.draw(st.sampled_from(["by name", "by name", "the newest", "your own loop"]))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for number in (1, 2, cut):
            shutil.copytree(whole.directory / f"checkpoint-{number}", directory / f"checkpoint-{number}")
        checkpoint = directory / f"checkpoint-{cut}"
        for function in functions:
            if checkpoint.is_dir() and any(path.is_file() for path in checkpoint.iterdir()):
                function(checkpoint)
        if way == "your own loop":
            _restore(whole, checkpoint, kind)
        else:
            _resume(whole, directory, None if way == "the newest" else checkpoint, kind)


def _resume(whole: Whole, directory: Path, checkpoint: Path | None, kind: str) -> None:
    """In a Trainer. There is always a whole checkpoint to find."""
    steps: list[int] = []
    trainer = build(directory, whole.settings, Count(steps))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    where = str(checkpoint) if checkpoint else True
    if outcome_of(lambda: trainer.train(resume_from_checkpoint=where), kind) is not None:
        same(outcome(trainer), whole.end)
        return
    in_the_way = [path for path in directory.iterdir() if path.is_file()]
    in_the_way += [path for path in directory.glob("*/*.*") if not path.is_file()]
    assert checkpoint is not None or in_the_way
    assert not steps and trainer.optimizer is None
    assert len(find_adapters(trainer.model)) == 12
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def _restore(whole: Whole, checkpoint: Path, kind: str) -> None:
    """In your own loop: the model is that of the checkpoint."""
    if not (checkpoint / MANIFEST).is_file():
        return  # without one, only the state is checked
    model = lora_bert(dropout=0.1)

    def load() -> Any:
        restore(model, checkpoint)
        return set_peft_model_state_dict(model, load_file(checkpoint / WEIGHTS))

    if outcome_of(load, kind) is not None:
        expected = load_file(whole.directory / checkpoint.name / WEIGHTS)
        found = model.state_dict()
        for key, value in expected.items():
            at = key.replace(".weight", ".default.weight") if "lora_" in key else key
            at = at if at in found else key.replace(".classifier.", ".classifier.modules_to_save.default.")
            assert torch.equal(found[at], value), key
        return
    assert len(find_adapters(model)) == 12


@given(st.floats(0, 0.999), values)
@fuzz(14)
def test_trainer_states_that_were_signed_anew_are_refused_or_continued(
    wholes: dict[str, Whole], share: float, value: Any
):
    """Somebody edits what Transformers reads, and writes a manifest that fits."""
    whole = wholes["gates, growing"]
    with tempfile.TemporaryDirectory() as name:
        checkpoint = shutil.copytree(whole.directory / "checkpoint-4", Path(name) / "checkpoint-4")
        before = (checkpoint / "trainer_state.json").read_bytes()
        _edit(checkpoint / "trainer_state.json", share, value)
        write_manifest(checkpoint, 4)
        trainer = build(name, whole.settings)
        edited = (checkpoint / "trainer_state.json").read_bytes() != before
        outcome_of(
            lambda: trainer.train(resume_from_checkpoint=str(checkpoint)), "checkpoint: signed", lambda _: edited
        )
