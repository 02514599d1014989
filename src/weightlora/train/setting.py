"""What a method is told of a run: target modules and K in numbers of this model, steps, and batches to look at."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from accelerate.utils import send_to_device
from torch import nn
from transformers import Seq2SeqTrainingArguments

from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..selection.adapting import all_linear, beside_linear, ends_as_head
from ..wording import first_line
from .arguments import Recipe
from .checks import number_to_keep, options_of, steps_to_select
from .chosen import chosen_targets
from .methods import Method, Setting, count_adapters
from .patterns import check_names, check_patterns, expression_in, patterns_in
from .work import Work

__all__ = ["setting_for", "steps_of"]


def steps_of(arguments: Seq2SeqTrainingArguments, rows: int) -> int:
    """Optimizer steps that the Trainer will make on this number of rows."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batch = arguments.train_batch_size * arguments.world_size
    batches = rows // batch if arguments.dataloader_drop_last else math.ceil(rows / batch)
    updates = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
    steps: int = math.ceil(arguments.num_train_epochs * updates)
    return steps


def setting_for(recipe: Recipe, work: Work, model: nn.Module, method: Method, fresh: Sequence[str]) -> Setting:
    """The settings of this run for its method, with K as a number of adapters.

    Args:
        recipe: The recipe of the run.
        work: What its task makes of the data.
        model: The model, with or without weights.
        method: The method.
        fresh: Modules to train in full, because the checkpoint lacks their weights.

    Raises:
        ConfigError: The target modules do not fit the model, or K is not between 1 and the number of adapters.
    """
    arguments, training = recipe.method, recipe.training
    steps = steps_of(training, len(work.train))
    targets: Any = arguments.target_modules
    names = [name for name, _ in model.named_modules()]
    beside = None
    if targets == ["all-linear"]:
        targets = all_linear(model, work.task_type)
        beside = beside_linear(model, targets)
    elif expression := expression_in(targets, names):
        targets = expression
    if isinstance(targets, list):
        check_names(targets, names)
    options = options_of(recipe)
    if "keep" not in recipe.given and "keep" in method.options:
        options.setdefault("keep", None)  # the other budgets, or the rule, say what stays
    chosen: dict[str, Any] = {}
    if (run := arguments.modules_from) is not None:
        chosen = chosen_targets(run, model, recipe.given, arguments.rank, arguments.alpha)
    whole = sorted({*fresh, *ends_as_head(model, work.task_type)})
    more = {"modules_to_save": whole, "exclude_modules": beside}
    revision = recipe.model.revision if recipe.model.revision != "main" else None  # of the base, for AutoPeftModel

    def batches() -> Iterable[dict[str, Any]]:
        size = training.per_device_train_batch_size
        for start in range(0, min(8 * size, len(work.train)), size):
            rows = [work.train[index] for index in range(start, min(start + size, len(work.train)))]
            yield send_to_device(dict(work.collate(rows)), training.device)

    setting = Setting(
        model=model,
        target={
            "target_modules": targets,
            "task_type": work.task_type,
            "revision": revision,
            **{name: value for name, value in more.items() if value},
            **chosen,
        },
        rank=arguments.rank,
        alpha=arguments.alpha,
        dropout=arguments.dropout,
        keep=0,
        select_steps=steps_to_select(arguments),
        steps=steps,
        seed=training.seed,
        batches=batches,
        options=options,
    )
    if not method.adapts:
        return setting
    check_patterns(patterns_in(targets, setting.options), names)
    try:
        n = count_adapters(setting)
    except (ValueError, TypeError, re.error) as error:
        raise ConfigError(
            f"target_modules={targets!r} do not fit the model ({first_line(error)}): name others, or leave it out."
        ) from error
    return replace(setting, keep=WeightLoraConfig(keep=number_to_keep(arguments.keep)).number_to_keep(n))
