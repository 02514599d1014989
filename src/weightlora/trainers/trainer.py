"""`WeightLoraTrainer`, a `transformers.Trainer` that selects adapters, and the mixin that makes one of any Trainer."""

import contextlib
import shutil
import warnings
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..config import WeightLoraConfig
from ..engines.fsdp1 import unwrapped
from ..errors import ConfigError, DataError
from ..files import is_of_writing
from ..manifest import MANIFEST, remove_manifest
from ..restoring import same_parameters
from .callback import WeightLoraCallback
from .card import check_card, describe_in_card, drop_damaged_card_
from .phases import checkpoint_dir, phased_engine, train_in_phases
from .resuming import (
    check_accelerate,
    check_fits,
    check_places,
    last_checkpoint,
    manifest_last,
    optimizer_of_all,
    read_checkpoint,
    step_of,
)


class WeightLoraTrainerMixin:
    """Makes a Trainer choose adapters, resume at any step, and list the kept adapters in the model card.

    Write `class MyTrainer(WeightLoraTrainerMixin, AnyTrainer)`. Pass the settings as `weightlora=config`, or a
    `WeightLoraCallback` among the callbacks.

    Args:
        weightlora: The settings. They add a `WeightLoraCallback`.

    Raises:
        ConfigError: If the settings are not a `WeightLoraConfig`, or are among the callbacks.

    Example:
        ```python
        class MyTrainer(WeightLoraTrainerMixin, Seq2SeqTrainer):
            pass

        trainer = MyTrainer(model, args, train_dataset=data, weightlora=WeightLoraConfig(keep_parameters=0.25))
        ```
    """

    def __init__(self, *args: Any, weightlora: WeightLoraConfig | None = None, **kwargs: Any) -> None:
        _check_arguments(weightlora, kwargs.get("callbacks"))
        if weightlora is not None:
            # First, because others may copy, count or save the model in the same event.
            kwargs["callbacks"] = [WeightLoraCallback(weightlora), *(kwargs.get("callbacks") or [])]
        self._trained_with: WeightLoraCallback | None = None
        super().__init__(*args, **kwargs)

    @property
    def weightlora(self: Any) -> WeightLoraCallback:
        """The callback.

        Raises:
            ConfigError: If there is none.
        """
        callback: WeightLoraCallback | None = self._selection()
        if callback is None:
            raise ConfigError("this Trainer selects nothing: pass weightlora=WeightLoraConfig(...), or the callback.")
        return callback

    def _selection(self: Any) -> WeightLoraCallback | None:
        callbacks = self.callback_handler.callbacks
        return next((callback for callback in callbacks if isinstance(callback, WeightLoraCallback)), None)

    def train(self: Any, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does. To resume, the model first gets the adapters and ranks of the checkpoint.

        Args:
            resume_from_checkpoint: `True` takes the newest complete checkpoint, and skips others with a warning.
                A checkpoint that you name must be complete.

        Raises:
            ConfigError: If the Trainer never had a `WeightLoraCallback`.
            StateError: If the checkpoint is missing, damaged or of other settings. Nothing was changed then.
        """
        whole = super().train  # type: ignore[misc]
        if self._selection() is None and self._trained_with is not None:  # removed, to train the kept adapters on
            return whole(resume_from_checkpoint, *args, **kwargs)
        callback = self._trained_with = self.weightlora
        state = None
        if resume_from_checkpoint is True:
            last, state = last_checkpoint(self.args.output_dir)
            resume_from_checkpoint = str(last)
        elif resume_from_checkpoint:
            state = read_checkpoint(resume_from_checkpoint)
        check_places(self.args.output_dir, step_of(resume_from_checkpoint) if resume_from_checkpoint else 0)
        check_card(self.args.output_dir)
        if resume_from_checkpoint:
            check_fits(self, resume_from_checkpoint)
            # `model_init` makes another model later, and an optimizer with it
            built = contextlib.nullcontext() if self.model_init is not None else optimizer_of_all(self)
            with built as optimizer:
                callback.resume(self.model, resume_from_checkpoint, optimizer, state)
        engine = phased_engine(self)
        if engine is None:
            return whole(resume_from_checkpoint, *args, **kwargs)
        again = lambda checkpoint: whole(checkpoint, *args, **kwargs)  # noqa: E731
        return train_in_phases(self, callback, engine, again, resume_from_checkpoint or None)

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        check_accelerate(self)
        callback = self._selection()
        if callback is not None and callback.engine is not None:  # the model had its weights before the engine took it
            return
        if callback is not None and self.model_init is not None and not self.is_fsdp_enabled:
            # another model than the one that `train` has prepared
            with optimizer_of_all(self) as optimizer:
                callback.resume(self.model, resume_from_checkpoint, optimizer)
        with same_parameters(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]

    def _load_best_model(self: Any) -> None:
        with same_parameters(self.model):
            super()._load_best_model()  # type: ignore[misc]

    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as the Trainer does, and warn if the choice is not made yet."""
        if not _internal_call and self.args.should_save:
            _warn_unfinished(self._selection(), output_dir or self.args.output_dir)
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]

    def _save_checkpoint(self: Any, model: Any, trial: Any = None, *args: Any, **kwargs: Any) -> None:
        # The selection's state comes first and the manifest last, both before Trainer deletes older checkpoints.
        folder = checkpoint_dir(self._get_output_dir(trial), self.state)
        callback = self._selection()
        if callback is not None:  # another callback may save before it hears of the step (enable_jit_checkpoint)
            callback.advance(self.state)
        try:
            with contextlib.ExitStack() as stack:
                if self.args.should_save:
                    remove_manifest(folder)  # an earlier run's
                    drop_damaged_card_(folder)
                    if callback is not None:
                        callback.save(folder)
                        stack.enter_context(manifest_last(self, folder))
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial, *args, **kwargs)  # type: ignore[misc]
        except Exception as error:
            by_torch = isinstance(error, RuntimeError)  # whose errors do not mention a full disk
            if (folder / MANIFEST).is_file() or not (by_torch or is_of_writing(error)):
                raise
            free = shutil.disk_usage(self.args.output_dir).free / 1e6
            whole = any(path.is_file() for path in folder.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{MANIFEST}"))
            remedy = (
                "earlier checkpoints are complete, so make room and continue with resume_from_checkpoint=True"
                if whole
                else "make room, and train again"
            )
            raise DataError(
                f"{folder} could not be written, with {free:.1f} MB free there ({error}): {remedy}."
            ) from error

    def _save_rng_state(self: Any, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()  # it is the last file of each process, and the manifest lists them all

    def _save(self: Any, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        with unwrapped(self.model):
            super()._save(output_dir, *args, **kwargs)  # type: ignore[misc]
        self._describe(output_dir or self.args.output_dir)

    def create_model_card(self: Any, *args: Any, **kwargs: Any) -> None:
        # Trainer overwrites the card before an upload.
        super().create_model_card(*args, **kwargs)  # type: ignore[misc]
        self._describe(self.args.output_dir)

    def _describe(self: Any, directory: str) -> None:
        callback = self._selection() or self._trained_with
        if self.args.should_save and callback is not None and callback.selector is not None:
            describe_in_card(callback.selector, directory)


class WeightLoraTrainer(WeightLoraTrainerMixin, Trainer):
    """`transformers.Trainer` that chooses adapters and resumes at any step; see `WeightLoraTrainerMixin`.

    Example:
        ```python
        trainer = WeightLoraTrainer(model, args, train_dataset=data, weightlora=WeightLoraConfig(keep_parameters=0.25))
        trainer.train()
        trainer.save_model("out")  # an ordinary PEFT adapter
        ```
    """


def _check_arguments(weightlora: Any, callbacks: Any) -> None:
    for callback in callbacks or []:
        kind = callback if isinstance(callback, type) else type(callback)
        if issubclass(kind, WeightLoraConfig):
            raise ConfigError(
                "callbacks holds a WeightLoraConfig, which is no callback: pass it as weightlora=config."
            )
    if isinstance(weightlora, WeightLoraCallback):
        raise ConfigError(
            "weightlora is a WeightLoraCallback: pass it among callbacks=[...], or its config as weightlora=config."
        )
    if weightlora is not None and not isinstance(weightlora, WeightLoraConfig):
        raise ConfigError(f"weightlora is a {type(weightlora).__name__}: pass a WeightLoraConfig.")


def _warn_unfinished(callback: WeightLoraCallback | None, directory: str) -> None:
    selector = None if callback is None else callback.selector
    if callback is None or (selector is not None and selector.phase == "train"):
        return
    when, count = "before training", ""
    if selector is not None:
        when = f"after {selector.step_count} of {selector.config.select_steps} selection steps"
        count = f" {len(selector.adapters)}"
    warnings.warn(
        f"{directory} is saved {when}: it holds all{count} adapters, because the choice is not made yet. Save again "
        "after the choice.",
        stacklevel=3,
    )
