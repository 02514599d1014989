"""What a method is told of a run: its target modules, those of an earlier run among them, K, and steps."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelerate.utils import send_to_device
from torch import nn
from transformers import Seq2SeqTrainingArguments

from ..adapters.outcome import default_and_exceptions, longer_names
from ..config import WeightLoraConfig
from ..errors import ConfigError, DataError, ModelError
from ..run import FUSED
from ..selection.adapting import all_linear, beside_linear, ends_as_head
from ..selection.formats.wording import alternatives
from ..selection.record import Selection
from ..values import parse_number
from ..wording import first_line
from .arguments import Recipe, parse_json
from .checks import options_of, steps_to_select
from .methods import Method, Setting, sizes_of
from .patterns import check_names, check_patterns, expression_in, patterns_in
from .settings import MethodArguments
from .work import Work

ON_A_LIST = ("lora", "rslora", "dora")
"""Methods that train a fixed list of modules."""

OWN_RANKS = ("rank_pattern", "alpha_pattern", "use_rslora")
"""Options of PEFT that would change the ranks or the scalings of a run."""

EXCLUDED = {
    "target_modules": "names modules, too",
    "keep": "chooses among modules",
    "select_steps": "chooses among modules",
}


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
        n = len(sizes_of(setting))
    except (ValueError, TypeError, re.error) as error:
        raise ConfigError(
            f"target_modules={targets!r} do not fit the model ({first_line(error)}): name others, or leave it out."
        ) from error
    return replace(setting, keep=WeightLoraConfig(keep=parse_number(arguments.keep)).number_to_keep(n))


def with_chosen_modules(recipe: Recipe) -> Recipe:
    """The recipe with plain LoRA as its method, if it takes its modules from a run and no method was given.

    Raises:
        ConfigError: If another setting chooses modules, too.
    """
    run = recipe.method.modules_from
    if run is None:
        return recipe
    for name, what in EXCLUDED.items():
        if name in recipe.given:
            raise ConfigError(f"--modules_from {run} gives the modules, and --{name} {what}: give one of the two.")
    if "method" not in recipe.given:
        recipe.method.method = "lora"
        return replace(recipe, given={**recipe.given, "method": "lora"})
    if recipe.method.method not in ON_A_LIST:
        raise ConfigError(
            f"--modules_from {run} gives the modules, and --method {recipe.method.method} does not train a given "
            f"list: leave it out for plain LoRA, or give {' or '.join(ON_A_LIST[1:])}."
        )
    return recipe


def chosen_targets(
    run: str,
    model: nn.Module,
    given: Mapping[str, Any],
    rank: int = MethodArguments.rank,
    alpha: int = MethodArguments.alpha,
) -> dict[str, Any]:
    """PEFT's `target_modules` and `target_parameters` for exactly the modules that a run chose.

    If the run gave ranks in proportion, PEFT's patterns have them. If it gave the fused projections of experts a
    multiple of the rank of the others, as PEFT does, the patterns have this multiple.

    Args:
        run: Its directory.
        model: The base model to train.
        given: The settings of the recipe that were given.
        rank, alpha: Those of the recipe, given or not.

    Raises:
        ConfigError: If the run has ranks of its own, and the recipe another one.
        DataError: If the directory has no choice, or none that is final.
        ModelError: If the model lacks one of the modules.
    """
    selection = Selection.load(run)
    if not selection.final:
        raise DataError(f"{run} has made no choice yet (step {selection.step}): wait until it has, or give another.")
    modules, parameters = selection.module_names, selection.target_parameters
    known, held = ({name for name, _ in named} for named in (model.named_modules(), model.named_parameters()))
    missing = [name for name in modules if name not in known] + [name for name in parameters if name not in held]
    if missing:
        source = "" if selection.model is None else f" ({selection.model})"
        raise ModelError(
            f"{run} chose {missing[0]!r}, which {type(model).__name__} does not have: train the model that the run "
            f"chose from{source}, on the same kind of task."
        )
    targets: dict[str, Any] = {"target_modules": modules}
    if longer_names(model, modules):  # PEFT takes names as suffixes
        targets["target_modules"] = alternatives(modules)
    if selection.rank_rule is not None:
        targets |= _patterns(run, selection, given)
    elif (times := selection.fused_rank or 1) > 1 and (fused := [one for one in parameters if one.endswith(FUSED)]):
        targets["rank_pattern"] = dict.fromkeys(fused, times * rank)
        targets["alpha_pattern"] = dict.fromkeys(fused, times * alpha)
    return targets | ({"target_parameters": parameters} if parameters else {})


def _patterns(run: str, selection: Selection, given: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's patterns with the ranks of a run, and its scalings under the method that trains.

    Raises:
        ConfigError: If the recipe sets another rank or scaling.
    """
    options = parse_json("method_options", given.get("method_options"))
    for name in ("rank", "alpha", *OWN_RANKS):
        if name in (options if name in OWN_RANKS else given):
            raise ConfigError(f"{run} has a rank for each module, and {name} sets others: leave it out.")
    root = math.sqrt if given.get("method") == "rslora" else float
    alphas = {name: selection.scalings[name] * root(rank) for name, rank in selection.ranks.items()}
    patterns: dict[str, dict[str, Any]] = {"rank_pattern": selection.ranks, "alpha_pattern": alphas}
    # without a default: each module has its own value
    return {name: default_and_exceptions(values, lambda _: None)[1] for name, values in patterns.items()}
