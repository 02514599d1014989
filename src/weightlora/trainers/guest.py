"""What every trainer's callback does with a selection: check the run, begin, feed and report it, and end it."""

import os
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..adapters import base_model_of, unwrap_model
from ..config import WeightLoraConfig, as_config
from ..engines import Engine
from ..errors import ModelError, TrainingError
from ..guard import START_AGAIN
from ..selector import WeightLora
from ..state import State, read_state
from ..tensors import numel

TAG, UNFINISHED_TAG = "weightlora", "weightlora-unfinished"


class Guest:
    """A selection inside a training loop that another library owns.

    Args:
        config: The settings as the user gave them. `None` takes the defaults.
        say: Prints one message at level INFO, where the library prints its own.
        train, leave_out: How its users start a training, and how they take the callback out; for the messages.

    Attributes:
        selector: The `WeightLora`, from the start of training on.
        checkpoint: The last one of this training, for the message of a training that diverges.

    Raises:
        ConfigError: If `config` is not a `WeightLoraConfig`.
    """

    def __init__(
        self, config: WeightLoraConfig | None, say: Callable[[str], None], train: str, leave_out: str
    ) -> None:
        self.config = as_config(config)
        self.selector: WeightLora | None = None
        self._say, self._call, self._leave_out = say, train, leave_out
        self.checkpoint: str | os.PathLike[str] | None = None
        self._grad_scale: float | None = None
        self._unread = False  # the evidence of a step
        self._running = False

    def begin(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        total_steps: float,
        state: dict[str, Any] | None,
        run_dir: str | os.PathLike[str] | None,
        probe: Callable[[WeightLora], None],
        engine: Engine | None = None,
    ) -> None:
        """Start the selection, before the first step. A new model starts a new selection.

        Args:
            model: The PEFT model, wrapped or not.
            optimizer: Holds the adapters' parameters.
            total_steps: Optimizer steps of the whole training; infinity if it has no fixed length.
            state: The saved state of the selection, where training resumes, or `None`.
            run_dir: Where the choice and its history are written, or `None`.
            probe: Gives a selection that looks at batches before training the library's own first ones.
            engine: See `WeightLora`.

        Raises:
            ModelError: If this guest has selected from the same model before, and training does not resume.
            WeightLoraError: If the settings, the model and the training do not fit one another.
        """
        if self.selector is not None and self._has_seen(model):
            if state is None and _has_evidence(self.selector):
                self._refuse_second(self.selector)
            self.selector.close()  # it goes on from a checkpoint, or an error came before its first step
        self._running = True
        self.checkpoint = None if state is None else self.checkpoint
        total = None if total_steps == float("inf") else int(total_steps)
        self.selector = WeightLora(
            model, optimizer, self.config, state, total_steps=total, engine=engine, run_dir=run_dir
        )
        self.selector.guard.go_back = self._go_back
        if self.selector.needs_probe:
            probe(self.selector)
        if self.selector.phase == "train":
            # Chosen before the first step, or before the checkpoint that the run resumes from.
            if state is None:
                self._announce()
            else:
                _tag(model, TAG)
            return
        _tag(model, UNFINISHED_TAG)
        if self.selector.config.select_steps == total:
            warnings.warn(
                f"select_steps={total} is the whole training, so no step is left in which the kept adapters train "
                "alone: lower select_steps, or train longer.",
                stacklevel=3,
            )

    def start_over(self, model: nn.Module, finds_batch_size: bool, step: int) -> dict[str, Any] | None:
        """Get ready to begin again on the same model, if the library gave up a training to try smaller batches.

        Args:
            model: That is about to train. A new one (`model_init`) has a selection of its own.
            finds_batch_size: Whether the library does that.
            step: The step that it begins again from: 0, or that of the checkpoint from which it was resumed.

        Returns:
            The state of the selection, which goes on; None if it has seen nothing yet, or if no training was given up.
        """
        if self.selector is None or not (finds_batch_size and self._running and self._has_seen(model)):
            return None
        selector, self.selector = self.selector, None
        selector.close()
        continues = _has_evidence(selector)
        self._say(f"Training starts over, and the selection {'continues' if continues else 'starts over, too'}.")
        return selector.state_dict() | {"carried": max(0, selector.step_count - step)} if continues else None

    def note_scale(self, scaler: Any) -> None:
        """Remember the loss scale that the gradients of this step carry. Call it before the optimizer's step.

        Args:
            scaler: The AMP scaler, or `None`. The step itself may change its scale.
        """
        self._unread = True
        self._grad_scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else None

    def observe(self) -> None:
        """Read the evidence of the optimizer step that was just made. A second call in the same step does nothing."""
        unread, self._unread = self._unread, False
        if self.selector is not None and unread:
            self.selector.observe(self._grad_scale)

    def advance(self) -> bool:
        """Disconnect adapters if a round of the selection is over; returns whether it was."""
        selector = self.selection()
        if selector.phase == "train":
            return False
        rounds = selector.rounds_over
        selector.advance()
        if self.selection().phase == "train":  # by now
            self._announce()
        return selector.rounds_over > rounds

    def end(self, best: str | os.PathLike[str] | None = None) -> None:
        """Choose now if training ended before the selection did, and warn.

        Args:
            best: The checkpoint whose weights the library has loaded, or `None` if the model has its last ones.

        Raises:
            StateError: If that checkpoint has no state with the gates of its weights.
        """
        selector, self._running = self.selection(), False
        if selector.phase == "train":
            return
        warnings.warn(
            f"training ended after {selector.step_count} of {selector.config.select_steps} selection steps: the "
            "choice is made now, and the kept adapters were not trained alone."
            + ("" if best is None else f" The weights are those of {best}, the best ones."),
            stacklevel=3,
        )
        selector.finish(State.from_dict(read_state(best)) if best is not None and selector.has_gates else None)
        self._announce()

    def metrics(self) -> dict[str, float]:
        """The numbers to log: the present state of the selection."""
        selector = self.selection()
        trainable = (numel(p) for a in selector.adapters for p in a.parameters if p.requires_grad)
        found: dict[str, float] = {
            "weightlora/active_adapters": len(selector.kept),
            "weightlora/trainable_parameters": sum(trainable),
        }
        if selector.has_gates:
            gates = [gate for gate in selector.omega.values() if gate] or [0.0]
            found["weightlora/gate_min"] = min(gates)
            found["weightlora/gate_mean"] = sum(gates) / len(gates)
            found["weightlora/gate_max"] = max(gates)
        return found

    def selection(self) -> WeightLora:
        """The selector.

        Raises:
            TrainingError: If training has not begun.
        """
        if self.selector is None:
            raise TrainingError(f"the selection has not begun: it begins with trainer.{self._call}.")
        return self.selector

    def _go_back(self) -> str:
        return START_AGAIN if self.checkpoint is None else f"resume from {self.checkpoint}"

    def _has_seen(self, model: nn.Module) -> bool:
        return self.selector is not None and unwrap_model(model) is unwrap_model(self.selector.model)

    def _refuse_second(self, selector: WeightLora) -> None:
        train, again = self._call, "build a new model and a new Trainer."
        if selector.phase != "train":
            raise ModelError(
                f"an earlier {train} ended after {selector.step_count} of {selector.config.select_steps} selection "
                f"steps of this model: resume from a checkpoint of it, or {again}"
            )
        raise ModelError(
            f"this callback has chosen {len(selector.kept)} adapters of this model in an earlier {train}: to train "
            f"them on, call {self._leave_out} first; to choose again, {again}"
        )

    def _announce(self) -> None:
        """Tag the model, and print what was kept."""
        selector = self.selection()
        _tag(selector.model, TAG, instead_of=UNFINISHED_TAG)
        self._say(selector.summary().text)


def _has_evidence(selector: WeightLora) -> bool:
    """Whether a selection has seen a step of the training, or has chosen."""
    return selector.step_count > 0 or selector.rounds_over > 0


def _tag(model: nn.Module, tag: str, instead_of: str | None = None) -> None:
    """Add a tag to the model card that `save_pretrained` writes, in place of another one."""
    base: Any = base_model_of(model)
    if hasattr(base, "model_tags"):
        tags = [one for one in base.model_tags or [] if one != instead_of]
        base.model_tags = tags if tag in tags else [*tags, tag]
