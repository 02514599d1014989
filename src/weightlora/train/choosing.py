"""Run the training to the decision and stop: the modules that it would keep, without the rest of it."""

import warnings
from typing import Any

from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .. import Selection, WeightLoraCallback
from ..adapters import find_adapters
from ..config import WeightLoraConfig
from ..errors import ConfigError, TrainingError
from ..selection.combining import Starts, check_wishes, starts_of
from .fitting import Callbacks, load_prepared, make_trainer
from .methods import Prepared
from .plan import Job

__all__ = ["check_chooses", "choose"]


def check_chooses(job: Job, group: str = "none", seeds: int = 1) -> None:
    """Raise a `ConfigError` if the run makes no choice, or cannot be repeated and grouped like this.

    Args:
        job: From `prepare`.
        group: Which modules are chosen together (`weightlora.select`).
        seeds: How many times it is to run.
    """
    method = job.recipe.method
    if method.modules_from is not None:
        raise ConfigError(f"--modules_from {method.modules_from} gives the modules: there is nothing to choose.")
    if job.plan.select_steps is None:
        raise ConfigError(
            f"--method {method.method} makes no choice while it trains: leave it out, or give weightlora."
        )
    if job.recipe.training.resume_from_checkpoint is not None:
        raise ConfigError("--resume_from_checkpoint continues a training, and a selection keeps no checkpoints.")
    check_wishes(WeightLoraConfig(), group, seeds)


def choose(
    job: Job, seed: int, output_dir: str, callbacks: Callbacks = (), group: str = "none", seeds: int = 1
) -> tuple[Selection, Starts, WeightLoraConfig]:
    """Train a prepared run until its choice is final. No step is made after it, and nothing is saved or evaluated.

    The choice is the one that the whole training at this seed would make.

    Args:
        job: From `prepare`.
        seed: Of the head, the adapters and the order of the data.
        output_dir: Where `selection.json` and `history.jsonl` are written while it runs.
        callbacks: More callbacks for the Trainer, or a function that makes them from what the method prepared.
        group: Which modules are chosen together; only checked here, before the first step.
        seeds: How many runs there are.

    Returns:
        The choice, the adapters before it, and the settings of the selection.

    Raises:
        WeightLoraError: A setting does not fit the model.
    """
    arguments: Any = job.recipe.training
    arguments.seed, arguments.output_dir = seed, output_dir
    arguments.save_strategy, arguments.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    arguments.load_best_model_at_end = arguments.push_to_hub = arguments.eval_on_start = False
    set_seed(seed)
    prepared = load_prepared(job)
    selection = _selection(prepared)
    starts = starts_of(find_adapters(prepared.model))
    check_wishes(selection.config, group, seeds, starts)
    set_seed(seed)
    more = callbacks(prepared) if callable(callbacks) else callbacks
    stop = _StopAtDecision(selection)
    stop.trainer = trainer = make_trainer(job, prepared.model, (*prepared.callbacks, *more, stop))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="select_steps=.* is the whole training")
        trainer.train()
    selector = selection.selector
    if selector is None or selector.phase != "train":
        raise TrainingError("training ended before the choice was made: give fewer --select_steps, or more data.")
    return Selection.of(selector), starts, selection.config


def _selection(prepared: Prepared) -> WeightLoraCallback:
    return next(c for c in prepared.callbacks if isinstance(c, WeightLoraCallback))


class _StopAtDecision(TrainerCallback):
    """Ends a training once its choice is final. It comes after the callback of the selection."""

    trainer: Any = None

    def __init__(self, selection: WeightLoraCallback) -> None:
        self._selection = selection

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._is_over():
            vars(self.trainer)["get_batch_samples"] = lambda *args, **kwargs: ([], None)  # so no step is made
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._is_over():
            control.should_training_stop = True

    def _is_over(self) -> bool:
        selector = self._selection.selector
        return selector is not None and selector.phase == "train"
