"""Adds the selection's numbers to every log entry, before any integration reads it."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler


class WeightLoraScalars(TrainerCallback):
    """Adds the numbers of a `WeightLoraCallback` to each log entry before TensorBoard, W&B and the others read it.

    Trainer calls these integrations before the user's callbacks, so this one stands at the very front.
    `evaluate()` logs the same dictionary that it returns. The numbers leave it right after the log: a hyperparameter
    search would otherwise add them to its objective.
    """

    def __init__(self, owner: Any, handler: CallbackHandler) -> None:
        self.owner, self._handler = owner, handler
        self._logged: dict[str, Any] = {}
        self._added: tuple[str, ...] = ()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._take_back()
        removed = all(callback is not self.owner for callback in self._handler.callbacks)
        if logs is None or removed or self.owner.selector is None:
            return
        entry = self.owner.metrics()
        logs.update(entry)
        state.log_history[-1].update(entry)
        self._logged, self._added = logs, tuple(entry)

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self._take_back()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._take_back()

    def _take_back(self) -> None:
        for key in self._added:
            self._logged.pop(key, None)
        self._logged, self._added = {}, ()


def put_in_front(owner: Any, handler: CallbackHandler) -> None:
    """Give the handler a `WeightLoraScalars` of this callback, unless it has one."""
    if not any(isinstance(callback, WeightLoraScalars) and callback.owner is owner for callback in handler.callbacks):
        # A new list: the handler may be going through the present one.
        handler.callbacks = [WeightLoraScalars(owner, handler), *handler.callbacks]
