"""`transformers.Trainer` with a selection in it that stops and resumes anywhere, and the mixin for other Trainers."""

import shutil
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..checkpoint import check_whole, last_whole
from ..config import WeightLoraConfig
from ..engines.fsdp1 import unwrapped
from ..errors import ConfigError
from .callback import WeightLoraCallback
from .card import describe_in_card
from .phases import checkpoint_dir, needs_phases, train_in_phases


class WeightLoraTrainerMixin:
    """Makes a Trainer select, resume in the middle of it, and say so in its model card.

    `class MyTrainer(WeightLoraTrainerMixin, AnyTrainer)`. A `WeightLoraCallback` among the callbacks does as well as
    the argument.

    Args:
        weightlora: The settings; adds a `WeightLoraCallback`.
    """

    def __init__(self, *args: Any, weightlora: WeightLoraConfig | None = None, **kwargs: Any) -> None:
        if weightlora is not None:
            kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), WeightLoraCallback(weightlora)]
        super().__init__(*args, **kwargs)

    @property
    def weightlora(self: Any) -> WeightLoraCallback:
        """The callback.

        Raises:
            ValueError: If there is none.
        """
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, WeightLoraCallback):
                return callback
        raise ConfigError("this Trainer selects nothing: pass weightlora=WeightLoraConfig(...), or the callback.")

    def train(self: Any, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Trainer's own, with the selection brought to where the checkpoint has it before anything is loaded.

        Args:
            resume_from_checkpoint: `True` takes the last checkpoint that is whole: one that a crash cut short is
                passed over.

        Raises:
            ValueError: If no callback of ours is there, or the checkpoint is missing, damaged or of other settings.
        """
        callback = self.weightlora  # or say that there is none, before anything else
        state = None
        if resume_from_checkpoint is True:
            last, state = last_whole(self.args.output_dir, PREFIX_CHECKPOINT_DIR, TRAINER_STATE_NAME)
            resume_from_checkpoint = str(last)
        elif resume_from_checkpoint:
            state = check_whole(resume_from_checkpoint, TRAINER_STATE_NAME)
        if resume_from_checkpoint:
            callback.resume(self.model, resume_from_checkpoint, self.optimizer, state)
        whole = super().train  # type: ignore[misc]
        if not needs_phases(self):
            return whole(resume_from_checkpoint, *args, **kwargs)
        return train_in_phases(self, callback, lambda at: whole(at, *args, **kwargs), resume_from_checkpoint or None)

    def _load_from_checkpoint(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.weightlora.engine is None:  # otherwise the model had its weights before the engine took it
            super()._load_from_checkpoint(*args, **kwargs)  # type: ignore[misc]

    def log(self: Any, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Trainer's own, with the selection's numbers where every integration sees them."""
        if self.weightlora.selector is not None:
            logs = {**logs, **self.weightlora.metrics()}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self: Any, *args: Any, **kwargs: Any) -> None:
        # Our state comes first, for Trainer ends by deleting older checkpoints. Its own trainer_state.json, written
        # last, marks a whole one; so would that of an earlier run.
        folder = checkpoint_dir(self.args, self.state)
        marker = folder / TRAINER_STATE_NAME
        try:
            if self.args.should_save:
                marker.unlink(missing_ok=True)
                self.weightlora.on_save(self.args, self.state, self.control)
            super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:  # torch's do not speak of a full disk
            if marker.is_file():
                raise
            free = shutil.disk_usage(self.args.output_dir).free / 2**20
            raise OSError(
                f"{folder} could not be written, with {free:.1f} MB free there ({error}): checkpoints before it are "
                "whole, so make room and go on with train(resume_from_checkpoint=True)."
            ) from error

    def _save(self: Any, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        with unwrapped(self.model):
            super()._save(output_dir, *args, **kwargs)  # type: ignore[misc]
        self._describe(output_dir or self.args.output_dir)

    def create_model_card(self: Any, *args: Any, **kwargs: Any) -> None:
        # Trainer writes over the card before an upload.
        super().create_model_card(*args, **kwargs)  # type: ignore[misc]
        self._describe(self.args.output_dir)

    def _describe(self: Any, directory: str) -> None:
        if self.args.should_save and self.weightlora.selector is not None:
            describe_in_card(self.weightlora.selector, directory)


class WeightLoraTrainer(WeightLoraTrainerMixin, Trainer):
    """`transformers.Trainer` that selects adapters, and resumes in the middle of it."""
