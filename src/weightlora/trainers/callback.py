"""The selection inside `transformers.Trainer`, TRL's trainers, and others that run Transformers' callbacks."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.utils import logging

from ..checkpoint import restore_
from ..config import WeightLoraConfig
from ..engines import Engine
from ..errors import ConfigError
from ..manifest import write_manifest
from ..optimizers import unwrap_optimizer
from ..restoring import same_parameters
from ..selector import WeightLora
from ..state import State, check_config, read_state, write_state
from .calling import calling, calling_trainer
from .card import describe_in_card
from .guest import Guest
from .logbook import Logbook
from .phases import checkpoint_dir
from .pictures import report_choice
from .probing import probe_in_trainer
from .resuming import (
    check_accelerate,
    check_fits,
    check_goes_on,
    check_structure,
    optimizer_of_all,
    read_checkpoint,
    saved_state,
    stay_finished,
)
from .scalars import put_in_front

logger = logging.get_logger(__name__)
# Below "transformers", so that TrainingArguments(log_level="info") shows what is said here.
trainer_logger = logging.get_logger("transformers.weightlora")


class WeightLoraCallback(TrainerCallback):
    """Chooses adapters in a `transformers.Trainer`: before the first step by default, or while it trains.

    Every log entry gets `weightlora/active_adapters` and `weightlora/trainable_parameters`, and with
    `selection="stoiht"` the minimum, mean and maximum of the gates. Every checkpoint gets `weightlora_state.json`, and
    `trainer.train(resume_from_checkpoint=...)` continues from it. If the choice is made while training,
    the search for the best checkpoint starts again, because earlier ones have other adapters. The log is also written
    to `log.jsonl` in the run directory, and TensorBoard, W&B and trackio get the picture of the choice. To resume a
    run, pass the callback to the Trainer's constructor, not to `add_callback()`.

    Args:
        config: The settings; `None` means `WeightLoraConfig()`.

    Attributes:
        selector: The `WeightLora`, from the start of training on.

    Raises:
        WeightLoraError: When training starts, if the model has no LoRA adapters, or the settings do not fit the run;
            during training, if there is no evidence to choose by.

    Example:
        ```python
        callback = WeightLoraCallback(WeightLoraConfig(keep_parameters=0.25))
        Trainer(model, args, train_dataset=data, callbacks=[callback])
        ```
    """

    def __init__(self, config: WeightLoraConfig | None = None) -> None:
        self._guest = Guest(config, trainer_logger.info, "train()", "trainer.remove_callback(WeightLoraCallback)")
        self.engine: Engine | None = None
        self.paused = False
        self._resumed: dict[str, Any] | None = None
        self._logbook = Logbook(None, 0)

    @property
    def config(self) -> WeightLoraConfig:
        """The settings, as they were given."""
        return self._guest.config

    @property
    def selector(self) -> WeightLora | None:
        return self._guest.selector

    def metrics(self) -> dict[str, float]:
        """The numbers that are logged; a `TrainingError` if training has not begun."""
        return self._guest.metrics()

    def resume(
        self,
        model: nn.Module,
        checkpoint_dir: str | os.PathLike[str],
        optimizer: Optimizer | None = None,
        state: State | None = None,
    ) -> None:
        """Give the model, and an optimizer that was built before, the structure that they had at a checkpoint.

        This happens before the weights and the optimizer's state are loaded.

        Args:
            model: Built as in the first run.
            checkpoint_dir: The checkpoint.
            optimizer: Edited in place.
            state: The checkpoint's state, if it was read before.

        Raises:
            StateError: If the checkpoint's state is missing or damaged, or does not fit.
        """
        state = State.from_dict(read_state(checkpoint_dir)) if state is None else state
        check_config(state, self.config)
        restore_(model, state, checkpoint_dir, None if optimizer is None else unwrap_optimizer(optimizer))
        self._resumed, self._guest.checkpoint = state.to_dict(), checkpoint_dir

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._settle_in()
        trainer = calling_trainer()
        if trainer is not None and not _resumes_by_itself(trainer):
            # No event precedes the loading of a checkpoint, so this one method of this one Trainer is wrapped.
            vars(trainer)["_load_from_checkpoint"] = partial(self._load_from_checkpoint, trainer)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._settle_in()
        trainer = calling_trainer()
        _refuse_silent_checkpoints(args, trainer)
        finds_size = args.auto_find_batch_size
        if self._resumed is not None and self._guest.checkpoint is not None:
            check_goes_on(self._guest.checkpoint, state)
        saved = self._resumed or self._guest.start_over(kwargs["model"], finds_size, state.global_step)
        self._resumed = None
        if saved is None and state.global_step:
            saved = saved_state(args, state, kwargs["model"])
        run_dir = _run_dir(args, state) if state.is_world_process_zero else None
        probe = partial(probe_in_trainer, trainer=trainer, loader=kwargs.get("train_dataloader"))
        self._guest.begin(kwargs["model"], kwargs["optimizer"], state.max_steps, saved, run_dir, probe, self.engine)
        self._logbook = Logbook(run_dir, state.global_step)
        if saved is None:
            self._report(state)
        elif trainer is not None and stay_finished(trainer):
            control.should_training_stop = True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._logbook.begin_step(state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._logbook.write(state.global_step, kwargs.get("logs") or {})

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._logbook.interrupt()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._guest.note_scale(getattr(kwargs["optimizer"], "scaler", None))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._guest.observe()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.advance(state)
        if self._guest.selection().engine.waiting and not control.should_training_stop:
            control.should_training_stop = self.paused = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.paused:  # Trainer takes any stop for the end of an epoch, and then evaluates
            control.should_save = True
            control.should_log &= state.epoch == int(state.epoch or 0)
            control.should_evaluate &= state.epoch == int(state.epoch or 0)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._logbook.interrupt()
        self._guest.checkpoint = folder = checkpoint_dir(_run_dir(args, state), state)
        trainer = calling_trainer()
        if trainer is not None and _resumes_by_itself(trainer):  # it has written the checkpoint whole
            return
        PartialState().wait_for_everyone()  # each process has written its files
        if args.should_save:
            self.save(folder)
            describe_in_card(self._guest.selection(), folder)
            write_manifest(folder, state.global_step)

    def advance(self, state: TrainerState) -> None:
        """Make the decision that is due after a step. Once it is made, nothing happens."""
        chosen = self._guest.selection().phase == "train"
        if self._guest.advance():
            self._logbook.interrupt()
            _forget_best(state)
        if not chosen:
            self._report(state)

    def save(self, folder: Path) -> None:
        """Write the selection's state into the checkpoint of the present step."""
        selector = self._guest.selection()
        if selector.has_gates and selector.phase != "train":
            logger.warning_once(
                "A checkpoint from before the choice has its adapters without their gates: resume from it, and take a "
                "later one as a model."
            )
        write_state(selector.state_dict(), folder)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.paused:
            chosen = self._guest.selection().phase == "train"
            self._guest.end(state.best_model_checkpoint if args.load_best_model_at_end else None)
            if not chosen:
                self._report(state)

    def go_on(self, state: dict[str, Any]) -> None:
        """Begin the next `train()` with a selection in this state."""
        self._resumed, self._guest.selector, self.paused = state, None, False

    def _report(self, state: TrainerState) -> None:
        """Give the picture of a choice that is made to the integrations."""
        selector = self._guest.selection()
        if selector.phase == "train" and state.is_world_process_zero and (handler := calling(CallbackHandler)):
            report_choice(selector, handler.callbacks, state.global_step)

    def _settle_in(self) -> None:
        """Put the numbers in front of the integrations.

        Raises:
            ConfigError: If the Trainer has another callback of this kind.
        """
        handler = calling(CallbackHandler)
        if handler is None:
            return
        ours = sum(isinstance(callback, WeightLoraCallback) for callback in handler.callbacks)
        if ours > 1:
            raise ConfigError(
                f"this Trainer has {ours} WeightLoraCallbacks, and a model is selected once: keep only one."
            )
        put_in_front(self, handler)

    def _load_from_checkpoint(self, trainer: Any, checkpoint: str, model: nn.Module | None = None) -> None:
        """The Trainer's own, after the model got the structure that it had at the checkpoint."""
        if self in trainer.callback_handler.callbacks:
            check_accelerate(trainer)
            state = read_checkpoint(checkpoint)
            check_fits(trainer, checkpoint)
            if trainer.is_fsdp_enabled:  # the model is in the engine already
                check_structure(trainer.model, state)
            else:
                with optimizer_of_all(trainer) as optimizer:
                    self.resume(trainer.model, checkpoint, optimizer, state)
        with same_parameters(trainer.model):
            type(trainer)._load_from_checkpoint(trainer, checkpoint, model)


def _forget_best(state: TrainerState) -> None:
    """Forget the best checkpoint of before a disconnect: Trainer would load it at the end."""
    if state.best_model_checkpoint is not None:
        logger.warning(
            f"{state.best_model_checkpoint} was the best checkpoint, but has the adapters from before the choice: "
            "the search for the best one starts again."
        )
    state.best_metric = state.best_model_checkpoint = state.best_global_step = None


def _run_dir(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the run writes. Each trial of a hyperparameter search has a directory of its own."""
    trainer = calling_trainer() if state.is_hyper_param_search else None
    if trainer is None:
        return Path(args.output_dir or "")
    return Path(trainer._get_output_dir(trainer._trial))


def _refuse_silent_checkpoints(args: TrainingArguments, trainer: Any) -> None:
    """Raise a `ConfigError` if a plain Trainer writes checkpoints of which it tells no callback."""
    if args.enable_jit_checkpoint and trainer is not None and not _resumes_by_itself(trainer):
        raise ConfigError(
            "enable_jit_checkpoint=True writes a checkpoint without telling callbacks, so it would lack the "
            "selection, and no run could resume from it: use WeightLoraTrainer (or its mixin)."
        )


def _resumes_by_itself(trainer: Any) -> bool:
    """Whether the Trainer has `WeightLoraTrainerMixin`."""
    return hasattr(type(trainer), "weightlora")
