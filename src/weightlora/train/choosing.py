"""Run the training to the decision and stop: the modules that it would keep, without the rest of it."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .. import Selection, WeightLoraCallback
from ..adapters import find_adapters
from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..files import append_lines, write_json, write_text
from ..run import HISTORY, SELECTION
from ..selection.combining import Wishes, check_wishes, combine
from ..selection.proportional import Start
from .arguments import Recipe
from .fitting import load_prepared, make_trainer
from .methods import Prepared
from .plan import Job

DEFAULT = Wishes()
Watch = Callable[[Prepared, int], Sequence[TrainerCallback]]


def check_begins(recipe: Recipe) -> None:
    """Raise a `ConfigError` if modules were chosen already, or a training is to go on."""
    if recipe.method.modules_from is not None:
        raise ConfigError(
            f"--modules_from {recipe.method.modules_from} gives the modules, and nothing is left to choose: leave it "
            "out, or train with weightlora train."
        )
    if recipe.training.resume_from_checkpoint is not None:
        raise ConfigError(
            "--resume_from_checkpoint continues a training, and a selection keeps no checkpoints: leave it out."
        )


def check_chooses(job: Job, wishes: Wishes = DEFAULT) -> None:
    """Raise a `ConfigError` if the run makes no choice, or cannot be repeated and grouped like this.

    Args:
        job: From `prepare`.
        wishes: How it is to choose.
    """
    if job.selection is None:
        raise ConfigError(f"--method {job.recipe.method.method} makes no choice: leave it out, or give weightlora.")
    check_wishes(job.selection, wishes)


def choose(job: Job, directory: Path, watch: Watch | None = None, wishes: Wishes = DEFAULT) -> Selection:
    """Train a prepared run until its choice is final, and write the choice.

    At one seed, it is the choice that the whole training would make. No step is made after it. Nothing else is saved,
    and nothing is evaluated.

    Args:
        job: From `prepare`, and one that `check_chooses` accepts with these wishes.
        directory: Where the run directory is written; with several seeds, each has a directory
            of its own in it, too.
        watch: Makes more callbacks for the Trainer from what the method prepared and from the seed.
        wishes: How to choose. Several seeds are that of the recipe, and those that follow it.

    Raises:
        WeightLoraError: A setting does not fit the model or the data.
    """
    first, seeds, runs = job.recipe.training.seed, wishes.seeds, []
    for seed in range(first, first + seeds):
        place = directory if seeds == 1 else directory / f"seed-{seed}"
        run, starts, config = _run(job, seed, place, watch, wishes)
        runs.append(run)
    selection = combine(runs, starts, config, wishes)
    if job.recipe.training.process_index == 0:
        write_json(directory / SELECTION, selection.to_dict())
        if selection.history:
            write_text(directory / HISTORY, "")
            append_lines(directory / HISTORY, selection.history)
    return selection


def _run(
    job: Job, seed: int, place: Path, watch: Watch | None, wishes: Wishes
) -> tuple[Selection, list[Start], WeightLoraConfig]:
    """The choice at one seed, the adapters before it, and the settings of the selection."""
    arguments: Any = job.recipe.training
    arguments.seed, arguments.output_dir = seed, str(place)
    arguments.save_strategy, arguments.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    arguments.load_best_model_at_end = arguments.push_to_hub = arguments.eval_on_start = False
    set_seed(seed)
    prepared = load_prepared(job)
    selection = prepared.selection
    assert selection is not None  # `check_chooses` has seen to it
    starts = [*map(Start.of, find_adapters(prepared.model))]
    check_wishes(selection.config, wishes, starts)
    set_seed(seed)  # dropout starts the same, however many random numbers were used
    more = () if watch is None else watch(prepared, seed)
    stop = _StopAtDecision(selection)
    stop.trainer = trainer = make_trainer(job, prepared.model, (*prepared.callbacks, *more, stop))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="select_steps=.* is the whole training")
        trainer.train()
    assert selection.selector is not None  # the training has begun
    return Selection.of(selection.selector), starts, selection.config


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
