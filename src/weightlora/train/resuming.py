"""Check the checkpoint that a plain Trainer is to go on from. A trainer with a selection checks its own."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from ..checkpoint import saved_shapes
from ..directories import locked
from ..errors import DataError, StateError
from ..files import read_json, write_json
from ..run import ADAPTER, HISTORY, LOG, RESULT, SELECTION
from ..trainers.resuming import TRAINER_STATE_NAME, refuse_other_directories, step_of
from ..wording import shortened
from .arguments import GROUPS

SETTINGS = "began_with.json"
"""File of the settings of a run, in its output directory until it is finished."""

MODEL = "model"
"""Where a model is written that was trained whole, in the output directory."""

LOCK = "_training"
"""File that a process locks while it trains in a directory. Trainers push no files with such names to the hub."""

FREE = (
    *("ddp", "eval", "gradient_checkpointing", "hub", "log", "per_device_eval", "push", "report", "resume", "save"),
    *(f"dataloader_{name}" for name in ("num_workers", "persistent_workers", "pin_memory", "prefetch_factor")),
    *("disable_tqdm", "load_best_model_at_end", "max_steps", "num_train_epochs", "output_dir", "run_name", "use_cpu"),
)
"""How the names of settings begin that may differ in a run that goes on."""

WHOLE = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
"""Files with the weights of a whole model."""


@contextlib.contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Raise a `DataError` if another process trains in this directory, which is made if it is missing."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (lock := output / LOCK).touch()
    except OSError as error:
        raise DataError(f"{output} cannot be made: {error.strerror}; give another --output_dir.") from error
    with locked(lock, wait=False) as ours:
        if ours is False:
            raise DataError(f"another training writes to {output}: wait until it ends, or give another --output_dir.")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def begin_settings(given: Mapping[str, Any], output: Path, resumed: str | None) -> None:
    """Note the settings of a run that begins, or that goes on in another directory.

    A run that begins deletes the choice of one that stopped there: a run without a choice would seem to have it.

    Args:
        given: The settings that were given.
        output: The output directory.
        resumed: `resume_from_checkpoint`.
    """
    if resumed is None:
        for name in (SELECTION, HISTORY, LOG) if (output / SETTINGS).is_file() else ():
            (output / name).unlink(missing_ok=True)
    elif _directory(resumed, output).resolve() == output.resolve():
        return
    write_json(output / SETTINGS, _as_json(given))


def check_settings(given: Mapping[str, Any], output: Path, resumed: str) -> None:
    """Compare the settings of a run that goes on with those that it began with.

    An optimizer takes its learning rate and weight decay from a checkpoint, and other settings would make another run
    of it, without a word.

    Args:
        given: The settings that were given.
        output: The output directory.
        resumed: `resume_from_checkpoint`.

    Raises:
        StateError: A setting that matters is not that of the run.
    """
    before = _settings_of(place := _directory(resumed, output))
    if before is None:
        return
    given = _as_json(given)
    every = [field for group in GROUPS for field in fields(group)]
    usual = {one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in every}
    for name in sorted(before.keys() | given.keys()):
        was, now = (one.get(name, usual.get(name)) for one in (before, given))
        if not name.startswith(FREE) and was != now:
            default = "the default" if usual.get(name) is None else f"the default ({usual[name]!r})"
            was, now = (repr(one[name]) if name in one else default for one in (before, given))
            raise StateError(
                f"the run in {place} began with {name} = {was}, and {now} is given: go on with the settings that it "
                "began with, or begin a run in another --output_dir."
            )


def _directory(resumed: str, output: Path) -> Path:
    """The output directory of the run that goes on."""
    return output if resumed.lower() == "true" else Path(resumed).parent


def _as_json(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file has them."""
    settings: dict[str, Any] = json.loads(json.dumps(dict(given), default=str))
    return settings


def _settings_of(place: Path) -> dict[str, Any] | None:
    """The settings of a run that stopped, or of one that is finished; None where nothing has them."""
    for name in (SETTINGS, RESULT):
        if os.path.isfile(place / name):
            found = read_json(place / name, "delete it to resume without a check of the settings")
            found = found if name == SETTINGS or not isinstance(found, dict) else found.get("settings")
            return found if isinstance(found, dict) else None
    return None


def check_unfinished(output: Path, resumes: bool) -> None:
    """Raise a `DataError` if the directory has what a run would replace: a result, checkpoints, a choice, an adapter.

    What a training that stopped without a checkpoint has left may be replaced.

    Args:
        output: The output directory.
        resumes: Whether the run continues from a checkpoint.
    """
    if os.path.isfile(output / RESULT):
        raise DataError(
            f"{output} has the result of a finished run: give another --output_dir, or delete that directory."
        )
    if not resumes and os.path.isdir(output) and get_last_checkpoint(str(output)) is not None:
        whole = any(output.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}"))  # which is written last
        how = "add --resume_from_checkpoint true to continue it" if whole else "none is complete, so delete them"
        raise DataError(f"{output} has checkpoints of a run that stopped: {how}, or give another --output_dir.")
    begins = not (resumes or os.path.isfile(output / SETTINGS))
    found = next((name for name in (SELECTION, ADAPTER, MODEL) if os.path.exists(output / name)), None)
    if begins and found:
        raise DataError(f"{output} has {found} of an earlier choice or training: give another --output_dir.")


def find_checkpoint(given: str, output: Path) -> str:
    """The directory to go on from, whatever it holds.

    Args:
        given: `resume_from_checkpoint`: a directory, or `true` for the last one of the output directory.
        output: The output directory.

    Raises:
        StateError: There is no such checkpoint.
    """
    found: str | None = given
    if given.lower() == "true":
        found = get_last_checkpoint(str(output)) if os.path.isdir(output) else None
    if found is None:
        raise StateError(
            f"there is no checkpoint in {output} to resume from: train without resume_from_checkpoint, or name one."
        )
    if not os.path.isdir(found):
        raise StateError(f"{shortened(found)} is not a directory: name a checkpoint that is there.")
    refuse_other_directories(found)
    return found


def checkpoint_of(given: str | None, output: Path, model: nn.Module, sharded: bool = False) -> str | None:
    """The checkpoint to go on from, once it is known to fit the model.

    An optimizer finds its state by the place of a parameter. So the state of other adapters, of the same number, would
    go to parameters of other shapes.

    Args:
        given: `resume_from_checkpoint`: a directory, or `true` for the last one of the output directory.
        output: The output directory.
        model: The model that is to be trained.
        sharded: Whether FSDP or DeepSpeed saves the weights in files of its own, which are not looked at.

    Raises:
        StateError: There is no such checkpoint, it is damaged, or it is of another model or method.
    """
    if given is None:
        return None
    found = find_checkpoint(given, output)
    step_of(place := Path(found))
    if sharded:
        return found
    if isinstance(model, PeftModel):
        _check_adapters(place, model)
    elif not any((place / name).is_file() for name in WHOLE):
        raise StateError(
            f"{place} has no {SAFE_WEIGHTS_NAME}, so it is not of a run that trained the whole model: resume with the "
            "method of the first run."
        )
    return found


def _check_adapters(place: Path, model: PeftModel) -> None:
    """Raise a `StateError` unless the saved tensors of the adapter have the names and shapes of the model's."""
    path = place / SAFETENSORS_WEIGHTS_NAME
    if not path.is_file():
        raise StateError(
            f"{place} has no {path.name}, so it is not of a run that trained adapters: resume with the method of the "
            "first run."
        )
    saved = saved_shapes(path)
    mine = {name: list(value.shape) for name, value in get_peft_model_state_dict(model).items()}
    if saved != mine:
        name = next(name for name in (*saved, *mine) if saved.get(name) != mine.get(name))
        raise StateError(
            f"{place} was saved with other adapters than this run has (the first difference is {name}): resume with "
            "the method and the settings of the first run."
        )
