"""Runs without a selection that resume: what fits goes on, and what does not is refused before anything is loaded."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import arguments

from weightlora.errors import StateError
from weightlora.train import fit, parse, prepare


@pytest.fixture(scope="module")
def saved(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpoint-2 of a run with three random adapters."""
    output = tmp_path_factory.mktemp("saved")
    more = ["--dataset", world / "glue", "--method", "random", "--save_strategy", "steps", "--save_steps", "2"]
    fit(prepare(parse(arguments(world, "cola", "deberta", output, *more, "--max_steps", "2", "--select_steps", "0"))))
    return output / "checkpoint-2"


@pytest.fixture
def resumed(world: Path, tmp_path: Path) -> Callable[..., list[str]]:
    data = ["--dataset", world / "glue"]
    return lambda checkpoint, *more: arguments(
        world, "cola", "deberta", tmp_path / "run", *data, "--resume_from_checkpoint", checkpoint, *more
    )


@pytest.mark.parametrize("method", ["top", "lora", "dora"])
def test_the_adapters_of_another_run_are_refused(resumed, saved: Path, method: str):
    """As many as `top` keeps, so the optimizer would take their moments, of other shapes: that ended the process."""
    job = prepare(parse(resumed(saved, "--method", method)))
    with pytest.raises(StateError, match=r"was saved with other adapters than this run has \(the first difference is"):
        fit(job)


def test_another_rank_is_refused(resumed, world: Path, tmp_path: Path):
    more = ["--dataset", world / "glue", "--method", "lora", "--save_strategy", "steps", "--save_steps", "2"]
    fit(prepare(parse(arguments(world, "cola", "deberta", tmp_path / "first", *more))))
    place = tmp_path / "first" / "checkpoint-2"
    with pytest.raises(StateError, match="was saved with other adapters"):
        fit(prepare(parse(resumed(place, "--method", "lora", "--rank", "4"))))
    assert fit(prepare(parse(resumed(place, "--method", "lora")))).steps == 4


@pytest.mark.parametrize(
    ("checkpoint", "method", "message"),
    [
        ("true", "lora", "there is no checkpoint in"),
        ("nothing", "lora", "nothing is not a directory: name a checkpoint that is there"),
        ("nothing", "full", "nothing is not a directory: name a checkpoint that is there"),
        ("saved", "full", "has no model.safetensors, so it is not of a run that trained the whole model"),
        ("empty", "lora", "has no trainer_state.json, so it is no checkpoint"),
        ("run", "lora", "is no checkpoint; it holds checkpoint-2: name one of them, or pass True"),
        ("run", "weightlora", "is no checkpoint; it holds checkpoint-2: name one of them, or pass True"),
        ("bare", "lora", "has no adapter_model.safetensors, so it is not of a run that trained adapters"),
        ("cut", "lora", "adapter_model.safetensors cannot be read"),
    ],
)
def test_what_cannot_be_resumed_is_one_sentence(resumed, saved: Path, tmp_path: Path, checkpoint, method, message):
    for name in ("bare", "cut"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "bare" / "adapter_model.safetensors").unlink()
    (tmp_path / "cut" / "adapter_model.safetensors").write_bytes(b"cut short")
    (tmp_path / "empty").mkdir()
    there = {"saved": saved, "run": saved.parent, **{name: tmp_path / name for name in ("empty", "bare", "cut")}}
    job = prepare(parse(resumed(there.get(checkpoint, checkpoint), "--method", method)))
    with pytest.raises(StateError, match=message):
        fit(job)
