"""Runs that resume: what fits goes on, and what does not is refused before the data is read, or the model loads."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recipes import arguments
from safetensors.torch import load_file
from transformers import TrainerCallback

from weightlora.errors import StateError
from weightlora.files import write_json
from weightlora.train import fit, parse, prepare
from weightlora.train.result import RESULT
from weightlora.train.resuming import SETTINGS, begin_settings, check_settings
from weightlora.train.settings import MethodArguments


@pytest.fixture(scope="module")
def saved(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpoint-2 of a run with three random adapters."""
    output = tmp_path_factory.mktemp("saved")
    more = ["--dataset", world / "glue", "--method", "random", "--save_strategy", "steps", "--save_steps", "2"]
    fit(prepare(parse(arguments(world, "cola", "deberta", output, *more, "--max_steps", "2", "--select_steps", "0"))))
    return shutil.copytree(output / "checkpoint-2", tmp_path_factory.mktemp("without") / "checkpoint-2")


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
    place = shutil.copytree(tmp_path / "first" / "checkpoint-2", tmp_path / "without" / "checkpoint-2")
    with pytest.raises(StateError, match="was saved with other adapters"):
        fit(prepare(parse(resumed(place, "--method", "lora", "--rank", "4"))))
    assert fit(prepare(parse(resumed(place, "--method", "lora")))).steps == 4


@pytest.mark.parametrize("method", ["lora", "random"])
def test_a_run_that_had_made_all_its_steps_makes_no_other(world: Path, tmp_path: Path, method: str):
    """It was stopped in the evaluation after them. Transformers alone would make one more."""
    more = ["--dataset", world / "glue", "--method", method, "--save_strategy", "steps", "--save_steps", "2"]
    more += ["--max_steps", "2", "--lr_scheduler_type", "constant"]
    more += ["--select_steps", "0"] if method == "random" else []
    first, second = tmp_path / "first", tmp_path / "second"
    whole = fit(prepare(parse(arguments(world, "cola", "deberta", first, *more))))
    again = ["--resume_from_checkpoint", first / "checkpoint-2"]
    resumed = fit(prepare(parse(arguments(world, "cola", "deberta", second, *more, *again))))
    assert whole.steps == resumed.steps == 2 and whole.metrics == resumed.metrics
    one, other = (load_file(place / "adapter" / "adapter_model.safetensors") for place in (first, second))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("checkpoint", "method", "message"),
    [
        ("true", "lora", "there is no checkpoint in"),
        ("true", "weightlora", "there is no checkpoint in"),
        ("nothing", "lora", "nothing is not a directory: name a checkpoint that is there"),
        ("nothing", "full", "nothing is not a directory: name a checkpoint that is there"),
        ("empty", "lora", "has no trainer_state.json, so it is not a checkpoint"),
        ("run", "lora", "is not a checkpoint. It holds checkpoint-2: name one of them, or pass True"),
        ("run", "weightlora", "is not a checkpoint. It holds checkpoint-2: name one of them, or pass True"),
    ],
)
def test_what_is_no_checkpoint_is_named_before_the_data_is_read(
    resumed, saved: Path, tmp_path: Path, checkpoint, method, message
):
    (tmp_path / "empty").mkdir()
    there = {"run": saved.parent, "empty": tmp_path / "empty"}
    recipe = parse(resumed(there.get(checkpoint, checkpoint), "--method", method, "--dataset", tmp_path / "no_data"))
    with pytest.raises(StateError, match=message):
        prepare(recipe)


@pytest.mark.parametrize(
    ("checkpoint", "method", "message"),
    [
        ("saved", "full", "has no model.safetensors, so it is not of a run that trained the whole model"),
        ("bare", "lora", "has no adapter_model.safetensors, so it is not of a run that trained adapters"),
        ("cut", "lora", "adapter_model.safetensors is damaged"),
    ],
)
def test_a_checkpoint_of_other_weights_is_refused(resumed, saved: Path, tmp_path: Path, checkpoint, method, message):
    for name in ("bare", "cut"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "bare" / "adapter_model.safetensors").unlink()
    (tmp_path / "cut" / "adapter_model.safetensors").write_bytes(b"cut short")
    job = prepare(parse(resumed(saved if checkpoint == "saved" else tmp_path / checkpoint, "--method", method)))
    with pytest.raises(StateError, match=message):
        fit(job)


class Killed(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


def test_a_run_goes_on_with_the_settings_that_it_began_with(world: Path, tmp_path: Path):
    """Others are refused before the data is read, which may take long."""
    more = ["--dataset", world / "glue", "--method", "lora", "--save_strategy", "steps", "--save_steps", "2"]

    def job(*other):
        return prepare(parse(arguments(world, "cola", "deberta", tmp_path / "run", *more, *other)))

    with pytest.raises(KeyboardInterrupt):
        fit(job("--alpha", "8"), [Killed()])
    again = ["--resume_from_checkpoint", "true"]
    for changed, message in (
        (["--alpha", "16"], r"began with alpha = 8\b.*, and 16\b.* is given: go on with the settings"),
        ([], r"began with alpha = 8\b.*, and the default \(32\) is given"),
        (["--alpha", "8", "--learning_rate", "0.1"], r"began with learning_rate = .*, and 0.1 is given"),
    ):
        with pytest.raises(StateError, match=message):
            job(*again, *changed)
    assert (tmp_path / "run" / SETTINGS).is_file()
    assert fit(job(*again, "--alpha", "8", "--logging_steps", "1")).steps == 4
    assert not (tmp_path / "run" / SETTINGS).exists(), "the result has them"


def test_a_run_that_begins_has_no_choice_of_one_that_stopped_there(tmp_path: Path):
    """The page of a run on all modules showed the adapters that the earlier run kept."""
    (chosen := tmp_path / "selection.json").write_text("{}")
    begin_settings({"method": "weightlora"}, tmp_path, None)
    assert chosen.exists(), "no run of ours wrote it"
    begin_settings({"method": "weightlora"}, tmp_path, "true")
    assert chosen.exists(), "a run goes on"
    begin_settings({"method": "lora"}, tmp_path, None)
    assert not chosen.exists()


def test_a_run_without_a_file_of_settings_goes_on(tmp_path: Path):
    check_settings({"alpha": 3}, tmp_path, "true")
    begin_settings({"alpha": 3}, tmp_path, None)
    checkpoint = str(tmp_path / "checkpoint-2")
    check_settings({"alpha": 3, "save_steps": 7}, tmp_path / "other", checkpoint)
    with pytest.raises(StateError, match=r"began with alpha = 3, and the default \(32\) is given"):
        check_settings({}, tmp_path / "other", checkpoint)


def test_the_settings_of_a_finished_run_and_of_one_that_went_on_elsewhere_are_compared(tmp_path: Path):
    """An optimizer has its learning rate from the checkpoint, and the result would name another one."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_json(first / RESULT, {"settings": {"learning_rate": 0.1}})
    with pytest.raises(StateError, match=r"began with learning_rate = 0\.1, and 0\.2 is given"):
        check_settings({"learning_rate": 0.2}, second, str(first / "checkpoint-2"))
    begin_settings({"learning_rate": 0.1}, second, str(first / "checkpoint-2"))
    with pytest.raises(StateError, match=r"began with learning_rate = 0\.1, and 0\.2 is given"):
        check_settings({"learning_rate": 0.2}, second, "true")


def test_a_default_that_is_given_is_no_other_setting(tmp_path: Path):
    begin_settings({"method": "lora"}, tmp_path, None)
    usual = {"rank": MethodArguments.rank, "lr_scheduler_type": "linear", "target_modules": ["all-linear"]}
    check_settings({"method": "lora", **usual}, tmp_path, "true")
    with pytest.raises(StateError, match=r"began with rank = the default \(8\), and 5 is given"):
        check_settings({"method": "lora", "rank": 5}, tmp_path, "true")
