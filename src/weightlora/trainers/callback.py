"""The controller inside `transformers.Trainer`, TRL, and whatever else runs its callbacks."""

import os
import warnings
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ..adapters import find_adapters
from ..checkpoint import restore_
from ..config import WeightLoraConfig
from ..engines import Engine
from ..errors import StateError
from ..optimizers import unwrap_optimizer
from ..selector import WeightLora
from ..state import STATE_FILE, State, check_config, read_state, write_state
from ..tensors import numel
from .phases import checkpoint_dir

logger = logging.get_logger(__name__)


class WeightLoraCallback(TrainerCallback):
    """Runs a `WeightLora` selection in a Trainer.

    Logs `weightlora/active_adapters`, `weightlora/trainable_parameters` and the gates' minimum, mean and maximum with
    each of the Trainer's own log entries, and writes `weightlora_state.json` into every checkpoint. At the disconnect,
    the best checkpoint so far is forgotten: it has the adapters that are gone.

    To resume, use `WeightLoraTrainer` (or its mixin), or call `weightlora.restore(model, checkpoint_dir)` before the
    Trainer is built.

    Args:
        config: The settings.

    Attributes:
        selector: The `WeightLora`, from the start of training on.

    Raises:
        ValueError: When training starts, if the model has no LoRA adapters or the settings do not fit the run; in
            training, if no gate got a gradient in a whole accumulation window.
    """

    def __init__(self, config: WeightLoraConfig | None = None) -> None:
        self.config = config or WeightLoraConfig()
        self.selector: WeightLora | None = None
        self.engine: Engine | None = None
        self.paused = False
        self._grad_scale = 1.0
        self._resumed: dict[str, Any] | None = None
        self._written = -1  # step of the last state that was written

    def resume(
        self,
        model: nn.Module,
        checkpoint_dir: str | os.PathLike[str],
        optimizer: Optimizer | None = None,
        state: State | None = None,
    ) -> None:
        """Bring the model (and an optimizer, if it was built before) to where the checkpoint's selection was.

        Call it before the weights and the optimizer's state are loaded; the mixin does.

        Raises:
            ValueError: If the checkpoint's state is missing or damaged, or does not fit.
        """
        state = State.from_dict(read_state(checkpoint_dir)) if state is None else state
        check_config(state, self.config)
        restore_(model, state, checkpoint_dir, None if optimizer is None else unwrap_optimizer(optimizer))
        self._resumed = state.to_dict()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.config.resolve(state.max_steps)
        if self.selector is not None:
            raise StateError(
                f"this callback has chosen {len(self.selector.kept)} adapters in an earlier train(): remove it with "
                "trainer.remove_callback() to train them on, or make a new one to choose again."
            )
        saved = self._resumed
        if saved is None and state.global_step:
            saved = _saved_state(args, state, kwargs["model"])
        self._written = -1
        self.selector = WeightLora(
            kwargs["model"],
            kwargs["optimizer"],
            self.config,
            saved,
            total_steps=state.max_steps,
            engine=self.engine,
            run_dir=args.output_dir if state.is_world_process_zero else None,
        )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The scale that this step's gates were multiplied by; the step itself may change it.
        scaler = getattr(kwargs["optimizer"], "scaler", None)
        self._grad_scale = scaler.get_scale() if scaler is not None else 1.0

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._get().observe(self._grad_scale)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        selector = self._get()
        adapters = len(selector.adapters)
        selector.advance()
        if len(selector.adapters) < adapters:
            _forget_best(state)
            tag = getattr(kwargs["model"], "add_model_tags", None)
            if tag is not None:
                tag(["weightlora"])
            if selector.engine.waiting and not control.should_training_stop:
                control.should_training_stop = self.paused = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.paused:  # Trainer takes any stop for the end of an epoch, and then evaluates
            control.should_save = True
            control.should_log &= state.epoch == int(state.epoch or 0)
            control.should_evaluate &= state.epoch == int(state.epoch or 0)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero and self._written != state.global_step:  # the mixin has written it
            write_state(self._get().state_dict(), checkpoint_dir(args, state))
            self._written = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.selector is None or logs is None or not state.is_world_process_zero:
            return
        entry = self.metrics()
        logs.update(entry)  # the mixin has put them there before W&B and TensorBoard, which come before this callback
        state.log_history[-1].update(entry)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        selector = self._get()
        if selector.phase != "train" and not self.paused:
            best = state.best_model_checkpoint if args.load_best_model_at_end else None
            weights = "" if best is None else f" The weights are those of {best}, the best ones."
            warnings.warn(
                f"training ended after {selector.step_count} of {selector.config.select_steps} selection steps: the "
                f"choice is made now, and the kept adapters were not trained on their own.{weights}",
                stacklevel=2,
            )
            selector.finish()

    def go_on(self, state: dict[str, Any]) -> None:
        """Begin the next `train()` with a selection in this state."""
        self._resumed, self.selector, self.paused = state, None, False

    def metrics(self) -> dict[str, float]:
        """The numbers that are logged, of the present state of the selection."""
        selector = self._get()
        gates = [gate for gate in selector.omega.values() if gate] or [0.0]
        trainable = (numel(p) for a in selector.adapters for p in a.parameters if p.requires_grad)
        return {
            "weightlora/active_adapters": len(selector.kept),
            "weightlora/trainable_parameters": sum(trainable),
            "weightlora/gate_min": min(gates),
            "weightlora/gate_mean": sum(gates) / len(gates),
            "weightlora/gate_max": max(gates),
        }

    def _get(self) -> WeightLora:
        if self.selector is None:
            raise StateError("the selection has not begun: it begins with trainer.train().")
        return self.selector


def _forget_best(state: TrainerState) -> None:
    """A checkpoint from before has other adapters: it is not to be loaded as the best one at the end."""
    if state.best_model_checkpoint is not None:
        logger.warning(
            f"{state.best_model_checkpoint} was the best checkpoint, and has adapters that are gone now: the "
            "search for the best one begins anew."
        )
    state.best_metric = state.best_model_checkpoint = state.best_global_step = None


def _saved_state(args: TrainingArguments, state: TrainerState, model: nn.Module) -> dict[str, Any]:
    """The state of a checkpoint that a plain Trainer resumes from, whose model the user has restored."""
    places = [args.resume_from_checkpoint, checkpoint_dir(args, state)]
    found = [place for place in places if place and (Path(place) / STATE_FILE).is_file()]
    if not found:
        raise StateError(
            f"training resumes at step {state.global_step}, and there is no {STATE_FILE} in "
            f"{' or '.join(str(place) for place in places if place)}: resume with WeightLoraTrainer, which finds it."
        )
    saved = read_state(found[0])
    parsed = State.from_dict(saved)
    if {adapter.name for adapter in find_adapters(model, check=False)} != parsed.live.keys():
        raise StateError(
            f"training resumes at step {state.global_step} with {len(parsed.live)} of {len(parsed.names)} "
            "adapters, and this model still has the others: call weightlora.restore(model, checkpoint_dir) before "
            "building the Trainer, or use WeightLoraTrainer."
        )
    return saved
