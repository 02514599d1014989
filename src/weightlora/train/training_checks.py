"""Checks of the Trainer's own arguments, which it makes after the first steps, or not at all."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from transformers import Seq2SeqTrainingArguments, Trainer, get_scheduler
from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks

from ..errors import ConfigError
from ..wording import first_line, shown
from .arguments import Recipe
from .result import HELD_OUT_LOSS
from .work import Work

NEEDED = {"prediction_loss_only": False, "batch_eval_metrics": False, "eval_do_concat_batches": True}
"""Arguments of the Trainer's evaluation -> the value with which it gives the metrics of the task."""

DECIDED: dict[str, tuple[Any, str]] = {
    "do_train": (True, "it always trains"),
    "do_eval": (True, "it always evaluates after the training"),
    "do_predict": (False, "it writes metrics, and no predictions"),
    "label_names": (None, "the task says what the labels are"),
}
"""Arguments that `weightlora train` decides -> what it decides, and why."""

NOT_LISTED = frozenset({"azure_ml", "flyte"})
"""Services of which Transformers does not always say whether their package is installed."""

ALWAYS = ("loss", "runtime", "samples_per_second", "steps_per_second")
"""What the Trainer adds to the metrics of an evaluation."""


def check_training(arguments: Seq2SeqTrainingArguments, given: Mapping[str, Any], here: bool = True) -> None:
    """Raise a `ConfigError` for an argument of the Trainer that a run cannot follow.

    Args:
        arguments: Of the Trainer.
        given: Those that were set in files or on the command line.
        here: Whether the run is to begin on this machine.
    """
    for name, needed in NEEDED.items():
        if (value := getattr(arguments, name)) != needed:
            raise ConfigError(f"{name}={value} leaves the evaluation without the metrics of the task: leave it out.")
    for name in ("bf16_full_eval", "fp16_full_eval"):
        if getattr(arguments, name):
            raise ConfigError(
                f"{name}=True would save the trained weights in 16 bits, after evaluating: leave it out."
            )
    for name, (decided, why) in DECIDED.items():
        if given.get(name, decided) != decided:
            raise ConfigError(f"{name}={given[name]} has no effect on weightlora train, for {why}: leave it out.")
    _check_schedule(arguments)
    for service in arguments.report_to or ():  # a list, whatever was given
        try:
            get_reporting_integration_callbacks([service])
        except ValueError as error:
            raise ConfigError(f"report_to={service!r} is unknown: {first_line(error)}.") from error
        if here and service not in NOT_LISTED and service not in get_available_reporting_integrations():
            raise ConfigError(
                f"report_to={service!r} is not ready here: install its package and set it up, or leave it out."
            )


def _check_schedule(arguments: Seq2SeqTrainingArguments) -> None:
    """Raise a `ConfigError` if Transformers cannot make the schedule of the learning rate from its settings."""
    kind: Any = arguments.lr_scheduler_type
    settings: Any = arguments.lr_scheduler_kwargs  # a text, if it is no JSON object
    try:
        get_scheduler(kind, SGD([nn.Parameter(torch.empty(0))], lr=1.0), 0, 10**6, settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"lr_scheduler_type={getattr(kind, 'value', kind)} cannot be used with lr_scheduler_kwargs="
            f"{shown(settings)} ({first_line(error)}): write its settings as JSON, or choose another schedule."
        ) from error


def check_best_metric(recipe: Recipe, work: Work) -> None:
    """Raise a `ConfigError` if the metric that chooses the best checkpoint is not among those of an evaluation.

    Note whether a larger one is better, unless the user did: Transformers takes all but a loss to be so, and so the
    largest perplexity to be the best.
    """
    arguments = recipe.training
    if (name := arguments.metric_for_best_model) is None:
        return
    known = [*work.reported, *ALWAYS, *([] if work.forced else [HELD_OUT_LOSS])]
    if name.removeprefix("eval_") not in known:
        raise ConfigError(
            f"metric_for_best_model={name!r} is not a metric of this task: choose one of loss, "
            f"{', '.join(work.reported)}."
        )
    if "greater_is_better" not in recipe.given:
        short = name.removeprefix("eval_")
        arguments.greater_is_better = short in work.units or short.endswith("_per_second")


def check_optimizer(arguments: Seq2SeqTrainingArguments, model: Any) -> None:
    """Raise a `ConfigError` if the Trainer cannot make its optimizer for the model, such as without a package."""
    given: Any = arguments.optim_args
    if given and not all("=" in pair for pair in given.split(",")):
        raise ConfigError(f"optim_args={given!r} must be pairs of name=value, with commas between them.")
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    except (ImportError, ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"optim={getattr(arguments.optim, 'value', arguments.optim)} cannot be used: {first_line(error)}."
        ) from error
