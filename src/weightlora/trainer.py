"""`WeightLoraCallback`: the controller inside `transformers.Trainer`, TRL, and whatever else runs its callbacks."""

import warnings
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .config import WeightLoraConfig
from .selector import WeightLora


class WeightLoraCallback(TrainerCallback):
    """Runs a `WeightLora` selection in a Trainer.

    Logs `weightlora/active_adapters`, `weightlora/trainable_parameters` and the gates' minimum, mean and maximum with
    each of the Trainer's own log entries.

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
        self._grad_scale = 1.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.config.select_steps > state.max_steps:
            raise ValueError(
                f"select_steps={self.config.select_steps} is longer than the training of {state.max_steps} steps: "
                f"lower it (a fifth of the training, {max(2, state.max_steps // 5)}, is a good start)."
            )
        if self.selector is not None:
            raise ValueError(
                f"this callback has chosen {len(self.selector.kept)} adapters in an earlier train(): remove it with "
                "trainer.remove_callback() to train them on, or make a new one to choose again."
            )
        if args.load_best_model_at_end:
            raise ValueError(
                "load_best_model_at_end=True could bring back a checkpoint from before the choice, without the kept "
                "adapters' later training: turn it off, and evaluate the final model."
            )
        if state.global_step:
            raise ValueError(
                f"training resumes at step {state.global_step}, and the selection's own state is not in Trainer "
                "checkpoints yet: start anew, or use a loop of your own with state_dict()."
            )
        self.selector = WeightLora(kwargs["model"], kwargs["optimizer"], self.config)

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
        self._get().advance()

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
        logs.update(entry)
        state.log_history[-1].update(entry)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        selector = self._get()
        if selector.phase != "train":
            warnings.warn(
                f"training ended after {selector.step_count} of {self.config.select_steps} selection steps: the "
                "choice is made now, and the kept adapters were not trained on their own.",
                stacklevel=2,
            )
            selector.finish()

    def metrics(self) -> dict[str, float]:
        """The numbers that are logged, of the present state of the selection."""
        selector = self._get()
        gates = [gate for gate in selector.omega.values() if gate] or [0.0]
        trainable = (p for a in selector.adapters for p in a.parameters if p.requires_grad)
        return {
            "weightlora/active_adapters": len(selector.kept),
            "weightlora/trainable_parameters": sum(parameter.numel() for parameter in trainable),
            "weightlora/gate_min": min(gates),
            "weightlora/gate_mean": sum(gates) / len(gates),
            "weightlora/gate_max": max(gates),
        }

    def _get(self) -> WeightLora:
        if self.selector is None:
            raise ValueError("the selection has not begun: it begins with trainer.train().")
        return self.selector
