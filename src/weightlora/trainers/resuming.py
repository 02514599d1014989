"""Checkpoints of `transformers.Trainer`: written and read as one thing; a finished run stays finished."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..checkpoint import check_whole, last_whole
from ..errors import StateError
from ..manifest import write_manifest
from ..state import State

TRAINER_STATE_NAME = "trainer_state.json"  # as in transformers.trainer, which imports much more

logger = logging.get_logger(__name__)


def read_checkpoint(checkpoint: str | Path) -> State:
    """The selection's state in a checkpoint that is whole.

    Raises:
        StateError: If it is not.
    """
    return check_whole(checkpoint, step_of)


def last_checkpoint(directory: str | Path) -> tuple[Path, State]:
    """The newest checkpoint that is whole, and its state. Broken ones are passed over with a warning.

    Raises:
        StateError: If there is none, or the processes find different ones.
    """
    found, state = last_whole(directory, PREFIX_CHECKPOINT_DIR, step_of)
    if PartialState().num_processes > 1 and len(names := set(gather_object([found.name]))) > 1:
        raise StateError(
            f"the processes would resume from different checkpoints ({', '.join(sorted(names))}): name one that is "
            "whole on each of them."
        )
    return found, state


def step_of(checkpoint: Path) -> int:
    """The step that the Trainer would go on from.

    Raises:
        StateError: If this version of Transformers does not read the Trainer's state.
    """
    path = checkpoint / TRAINER_STATE_NAME
    try:
        step = TrainerState.load_from_json(str(path)).global_step
    except Exception as error:  # what JSON and the constructor raise depends on the content
        raise StateError(
            f"{path} is missing, damaged, or of another version of Transformers ({type(error).__name__}: {error}): "
            "resume from another checkpoint."
        ) from error
    if type(step) is not int:
        raise StateError(f"{path} has global_step={step!r}, which is no step: resume from another checkpoint.")
    return step


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
        return trainer.state.global_step >= trainer.state.max_steps > 0

    def get_batch_samples(*args: Any, **kwargs: Any) -> Any:
        return ([], None) if finished() else given(*args, **kwargs)

    if finished():
        vars(trainer)["get_batch_samples"] = get_batch_samples
        logger.warning(
            f"the checkpoint is of step {trainer.state.global_step} of {trainer.state.max_steps}: the run is "
            "finished, and no step is made."
        )
    return finished()
