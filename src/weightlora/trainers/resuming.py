"""Checkpoints of `transformers.Trainer`: written and read as one thing; a finished run stays finished."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
from accelerate import PartialState
from accelerate.utils import compare_versions, gather_object
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy
from transformers.utils import logging

from ..adapters import find_adapters
from ..checkpoint import check_whole, last_whole
from ..engines.processes import together
from ..errors import StateError
from ..manifest import MANIFEST, write_manifest
from ..schema import Rule, or_none
from ..state import STATE_FILE, State, read_state
from ..wording import shown
from .phases import checkpoint_dir

TRAINER_STATE_NAME = "trainer_state.json"  # as in transformers.trainer, which imports much more
ENDINGS = {".bin", ".json", ".jinja", ".md", ".model", ".pt", ".pth", ".safetensors", ".txt"}
"""Of the files of a checkpoint; FSDP and DeepSpeed also make directories."""

STEP: Rule = (lambda value: type(value) is int and 0 <= value < 2**63, "a step")
AMOUNT: Rule = (lambda value: type(value) in (int, float) and 0 <= value <= 1e100, "a number from 0 to 1e100")
# What a Trainer takes over from its saved state, and calculates with, whatever it is.
FIELDS: dict[str, Rule] = {
    "global_step": STEP,
    "epoch": or_none(AMOUNT),
    **dict.fromkeys(("max_steps", "num_train_epochs", "num_input_tokens_seen", "total_flos"), AMOUNT),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), AMOUNT),
    "best_global_step": or_none(STEP),
    "best_metric": or_none(
        (lambda value: type(value) is float or (type(value) is int and abs(value) <= 1e100), "a number")
    ),
    "best_model_checkpoint": or_none((lambda value: isinstance(value, str), "a path")),
    "log_history": (
        lambda value: isinstance(value, list) and all(isinstance(entry, dict) for entry in value),
        "a list of entries",
    ),
    "stateful_callbacks": (lambda value: isinstance(value, dict), "an object"),
    "train_batch_size": (STEP[0], "a number of rows"),
}

logger = logging.get_logger(__name__)


def read_checkpoint(checkpoint: str | Path) -> State:
    """The selection's state in a checkpoint that is whole.

    Raises:
        StateError: If it is not.
    """
    with together("reading the checkpoint"):
        refuse_other_directories(checkpoint)
        return check_whole(checkpoint, step_of)


def refuse_other_directories(directory: str | Path) -> None:
    """Raise a `StateError` if a directory is no checkpoint, such as the output directory that holds checkpoints.

    A Trainer writes `trainer_state.json` into each checkpoint, and `save_state()` writes it into the output directory.
    A checkpoint that was cut short may have the selection's state only.
    """
    folder = Path(directory)
    steps = [path.name.rpartition("-")[2] for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")]
    if (steps := sorted(filter(str.isdecimal, steps), key=int)) and not (folder / MANIFEST).exists():
        held = ", ".join(f"{PREFIX_CHECKPOINT_DIR}-{step}" for step in steps)
        raise StateError(
            f"{folder} is not a checkpoint. It holds {held}: name one of them, or pass True (on the command line: "
            "true) for the newest one in the output directory."
        )
    if folder.is_dir() and not any((folder / name).exists() for name in (TRAINER_STATE_NAME, MANIFEST, STATE_FILE)):
        raise StateError(
            f"{folder} has no {TRAINER_STATE_NAME}, so it is not a checkpoint, or was cut short while it was written: "
            "name another directory."
        )


def saved_state(args: TrainingArguments, state: TrainerState, model: nn.Module) -> dict[str, Any]:
    """The state in the checkpoint that a plain Trainer resumed from without `WeightLoraCallback.resume`."""
    places = [args.resume_from_checkpoint, checkpoint_dir(args.output_dir, state)]
    found = [place for place in places if place and (Path(place) / STATE_FILE).is_file()]
    if not found:
        raise StateError(
            f"training resumes at step {state.global_step}, and there is no {STATE_FILE} in "
            f"{' or '.join(str(place) for place in places if place)}: resume with WeightLoraTrainer, which finds it."
        )
    saved = read_state(found[0])
    check_structure(model, State.from_dict(saved))
    return saved


def check_structure(model: nn.Module, state: State) -> None:
    """Raise a `StateError` unless the model has the adapters of a saved state, and no others."""
    if {adapter.name for adapter in find_adapters(model, check=False)} != state.live.keys():
        raise StateError(
            f"training resumes from a checkpoint with {len(state.live)} of {len(state.names)} adapters, and "
            "this model still has the others: call weightlora.restore(model, checkpoint_dir) before building the "
            "Trainer, or use WeightLoraTrainer."
        )


def check_goes_on(checkpoint: str | os.PathLike[str], state: TrainerState) -> None:
    """Raise a `StateError` if a training begins anew after one that failed to resume, and left its adapters."""
    if state.global_step == 0 and (Path(checkpoint) / TRAINER_STATE_NAME).is_file() and (step := step_of(checkpoint)):
        raise StateError(
            f"an earlier train() gave the model the adapters of {checkpoint}, of step {step}, and failed before it "
            "could go on from there: resume from a checkpoint, or build a new model and a new Trainer."
        )


def check_accelerate(trainer: Any) -> None:
    """Raise a `StateError` if Accelerate does not load what it saves, as with FSDP2 before version 1.15.

    Before 1.13, it left out the moments of the optimizer without a word. Later ones do not load PEFT models.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version == 2 and compare_versions("accelerate", "<", "1.15"):
        raise StateError(
            f"accelerate {accelerate.__version__} does not load all of a checkpoint of FSDP2: to resume, install "
            "accelerate 1.15 or newer."
        )


def check_fits(trainer: Any, checkpoint: str | os.PathLike[str]) -> None:
    """Raise a `StateError` if this Trainer cannot go on from a whole checkpoint, which another one wrote.

    A Trainer takes its intervals from the checkpoint, and divides by them.
    """
    saved = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    for kind in ("logging", "eval"):
        in_steps = getattr(trainer.args, f"{kind}_strategy") == IntervalStrategy.STEPS
        if in_steps and getattr(saved, name := f"{kind}_steps") == 0:
            raise StateError(
                f"{checkpoint} has {name}=0, which replaces {name}={getattr(trainer.args, name):g}: set "
                f"{kind}_strategy='no', or resume from another checkpoint."
            )
    _check_layout(trainer, checkpoint)


def _check_layout(trainer: Any, checkpoint: str | os.PathLike[str]) -> None:
    """Raise a `StateError` if a checkpoint of FSDP is resumed without it, or another one with it."""
    names = os.listdir(checkpoint)
    by_fsdp = any(name == "optimizer.bin" or name.startswith("optimizer_") for name in names)
    if trainer.is_deepspeed_enabled or not (by_fsdp or "optimizer.pt" in names):
        return
    if by_fsdp != bool(trainer.is_fsdp_enabled):
        before, now = ("with", "without") if by_fsdp else ("without", "with")
        raise StateError(
            f"{checkpoint} was written {before} FSDP, and this training runs {now} it, and would not find the "
            f"optimizer's state: resume {before} FSDP."
        )


@contextlib.contextmanager
def optimizer_of_all(trainer: Any) -> Iterator[Optimizer | None]:
    """The optimizer of a Trainer whose model still has all adapters; None where the Trainer has to build it later.

    It is edited inside, with the model, so it has the groups of the first run. If it were built from the adapters that
    are left, an optimizer with a group for each layer or parameter would have fewer groups than its saved state. After
    an error, the Trainer has what it had.
    """
    before = trainer.optimizer
    if before is None and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        trainer.create_optimizer()
    try:
        yield trainer.optimizer
    except BaseException:
        trainer.optimizer = before
        raise


def last_checkpoint(directory: str | Path) -> tuple[Path, State]:
    """The newest checkpoint that is whole, and its state. Broken ones are passed over with a warning.

    Raises:
        StateError: If there is none, or the processes find different ones.
    """
    with together("reading the checkpoints"):
        found, state = last_whole(directory, PREFIX_CHECKPOINT_DIR, step_of)
    if PartialState().num_processes > 1 and len(names := set(gather_object([found.name]))) > 1:
        raise StateError(
            f"the processes would resume from different checkpoints ({', '.join(sorted(names))}): name one that is "
            "whole on each of them."
        )
    return found, state


def check_places(directory: str | Path, after: int) -> None:
    """Raise a `StateError` if something lies in the way of checkpoints that a Trainer writes.

    Args:
        directory: The output directory, which may have checkpoints of an earlier run.
        after: The step that the run goes on from: later checkpoints are written.
    """
    for path in Path(directory).glob(f"{PREFIX_CHECKPOINT_DIR}-[0-9]*"):
        if not path.is_dir():
            raise StateError(
                f"{path} is not a directory, and a checkpoint may have to be written there: move it away."
            )
        step = path.name.rpartition("-")[2]
        for entry in path.iterdir() if step.isdecimal() and int(step) > after else ():
            if entry.suffix in ENDINGS and not entry.is_file():
                raise StateError(
                    f"{entry} is not a file, and one may have to be written there with a checkpoint: move it away."
                )


def step_of(checkpoint: str | os.PathLike[str]) -> int:
    """The step that the Trainer would go on from.

    Raises:
        StateError: If this version of Transformers does not read the Trainer's state.
    """
    path = Path(checkpoint) / TRAINER_STATE_NAME
    try:
        state = TrainerState.load_from_json(str(path))
    except Exception as error:  # what JSON and the constructor raise depends on the content
        raise StateError(
            f"{path} is missing, damaged, or of another version of Transformers ({type(error).__name__}: {error}): "
            "resume from another checkpoint."
        ) from error
    for name, (fits, what) in FIELDS.items():
        if hasattr(state, name) and not fits(value := getattr(state, name)):
            raise StateError(
                f"{path} has {name}={shown(value)}, and it must be {what}: resume from another checkpoint."
            )
    return int(state.global_step)


@contextlib.contextmanager
def manifest_last(trainer: Any, folder: Path) -> Iterator[None]:
    """Write the manifest right after the Trainer's own last file: before uploads, and before old checkpoints go."""
    state = trainer.state

    def save_to_json(path: str) -> None:
        type(state).save_to_json(state, path)
        write_manifest(folder, state.global_step)

    vars(state)["save_to_json"] = save_to_json
    try:
        yield
    finally:
        del vars(state)["save_to_json"]


def stay_finished(trainer: Any) -> bool:
    """Whether a Trainer that resumes has made all its steps. It gets no batches then.

    Transformers looks at `max_steps` after each step, so it would make one more if the last step is inside an epoch.
    """
    given = trainer.get_batch_samples

    def finished() -> bool:
        return bool(trainer.state.global_step >= trainer.state.max_steps > 0)

    def get_batch_samples(*args: Any, **kwargs: Any) -> Any:
        return ([], None) if finished() else given(*args, **kwargs)

    if finished():
        vars(trainer)["get_batch_samples"] = get_batch_samples
        logger.warning(
            f"the checkpoint is of step {trainer.state.global_step} of {trainer.state.max_steps}: the run is "
            "finished, and no step is made."
        )
    return finished()


class StaysFinished(TrainerCallback):
    """Asks `stay_finished` of a Trainer without a selection."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if stay_finished(self._trainer):
            control.should_training_stop = True
