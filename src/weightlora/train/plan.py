"""Plan a run before the model loads: data, adapters, budget, steps, parameters, optimizer memory."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedTokenizerBase, Trainer

from .. import WeightLoraConfig
from ..adapters import find_adapters
from ..errors import ConfigError, WeightLoraError
from ..tensors import tensors_in
from ..wording import first_line
from .arguments import Recipe
from .checks import check_recipe
from .data import read_splits
from .families import make_work
from .loading import check_heads, empty_model, fit_config_, fresh_modules, load_config, load_tokenizer
from .methods import METHODS, Method, Methods, Prepared, Setting, lora
from .resuming import check_settings, find_checkpoint
from .targets import setting_for, with_chosen_modules
from .tasks import find_task
from .training_checks import check_best_metric, check_optimizer
from .work import Source, Work


@dataclass(frozen=True)
class Plan:
    """The figures of a run. Those after the choice are upper bounds: adapters that use the whole budget.

    Attributes:
        model: Class of the model.
        parameters: Parameters of the model with its head, without adapters.
        rows: Tokenized rows by split.
        max_tokens: What longer rows are cut to; 0 if none is cut.
        full_rows: Training rows that have so many tokens after that.
        max_target, full_targets: The same of targets.
        adapters: n, the number of adapters at the start.
        keep: K; None if nothing is removed, or if the budget is not a number of adapters.
        trainable: Trainable parameters before and after the choice, with the head. The second is None where steps
            have to be measured to know what fits.
        optimizer_bytes: Size of the optimizer's state before and after; None where that is not known, or not known
            without a GPU.
        steps: Optimizer steps of the whole run.
        select_steps: Steps before the choice; 0 if it precedes the first step, None if the method makes no choice.
        learning_rate: The given one, or the default of the method.
        read, unread: Columns of the training data that the model gets, and the others. Empty where rows were given.
        split_off: Whether the validation rows were split off the training rows, as the data has no others.
    """

    model: str
    parameters: int
    rows: dict[str, int]
    max_tokens: int
    full_rows: int
    max_target: int
    full_targets: int
    adapters: int
    keep: int | None
    trainable: tuple[int, int | None]
    optimizer_bytes: tuple[int | None, int | None]
    steps: int
    select_steps: int | None
    learning_rate: float
    read: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    split_off: bool = False


@dataclass(frozen=True)
class Job:
    """A run that is ready to begin: everything but the model's weights.

    `selection` has the settings of the choice; it is None if the method makes none.
    """

    recipe: Recipe
    work: Work
    config: Any
    tokenizer: PreTrainedTokenizerBase
    plan: Plan
    methods: Methods
    selection: WeightLoraConfig | None = None


MakeWork = Callable[[Recipe, PreTrainedTokenizerBase, Any], Work]
"""Makes the work of a run from its recipe, the tokenizer and the model's config."""


def prepare(recipe: Recipe, methods: Methods = METHODS, make: MakeWork | None = None) -> Job:
    """Read the data, check everything that needs no weights, and plan.

    Args:
        recipe: From `parse`.
        methods: The registry of methods.
        make: Makes the `Work` instead of the task that the recipe names.

    Raises:
        WeightLoraError: Something is wrong with the settings, the data or the model, or the run that is to go
            on is not there or began with other settings.
    """
    task = find_task(recipe.data.task) if make is None else None
    recipe = with_chosen_modules(recipe)
    check_recipe(recipe, methods)
    recipe = _with_rate(recipe, methods[recipe.method.method])
    output, resumed = Path(str(recipe.training.output_dir)), recipe.training.resume_from_checkpoint
    if resumed is not None and not recipe.method.dry_run:
        find_checkpoint(resumed, output)
        check_settings(recipe.given, output, resumed)
    config = load_config(recipe.model)
    tokenizer = load_tokenizer(recipe.model)
    splits = None
    if task is not None:
        splits = read_splits(recipe.data, task, recipe.model.cache_dir)
        work = make_work(Source(task, recipe.data, splits.rows, tokenizer, config))
    else:
        assert make is not None
        work = make(recipe, tokenizer, config)
    check_best_metric(recipe, work)
    fit_config_(config, work, tokenizer)
    plan, selection = _plan(recipe, work, config, methods)
    if splits is not None:
        plan = replace(plan, read=splits.read, unread=splits.unread, split_off=splits.split_off)
    return Job(recipe, work, config, tokenizer, plan, methods, selection)


def _with_rate(recipe: Recipe, method: Method) -> Recipe:
    """The recipe with the method's learning rate, unless one was given."""
    if "learning_rate" in recipe.given:
        return recipe
    recipe.training.learning_rate = method.learning_rate
    return replace(recipe, given={**recipe.given, "learning_rate": method.learning_rate})


def _plan(recipe: Recipe, work: Work, config: Any, methods: Methods) -> tuple[Plan, WeightLoraConfig | None]:
    """The plan, and the settings of the choice."""
    model = empty_model(work, config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = type(model).__name__
    method = methods[recipe.method.method]
    fresh = fresh_modules(work, config, recipe.model) if method.adapts else []
    setting = setting_for(recipe, work, model, method, fresh)
    with torch.random.fork_rng(devices=[]):
        prepared = lora(replace(setting, options={})) if method.reads_weights else _prepared(setting, method)
    check_heads(recipe, prepared.model)
    if not recipe.method.dry_run:  # a plan may be for another machine
        check_optimizer(recipe.training, prepared.model)
    choice = None if prepared.selection is None else prepared.selection.config
    before = [
        parameter
        for name, parameter in prepared.model.named_parameters()
        if parameter.requires_grad and ".ranknum" not in name  # of AdaLoRA, trainable on the meta device only
    ]
    after, adapters, keep = before, _count(prepared.model), None
    measured = choice is not None and choice.resource is not None and choice.keep is None
    if choice is not None:
        keep = choice.number_to_keep(adapters) if choice.keep is not None else None
        after = _filling(prepared.model, before, choice)
    elif prepared.candidates is not None:
        adapters, keep = len(prepared.candidates), _count(prepared.model)
    elif method.keeps:
        keep = setting.keep
        before = after = _filling(prepared.model, before, WeightLoraConfig(keep=keep, selection="random"))
    plan = Plan(
        model=name,
        parameters=parameters,
        rows={split: len(rows) for split, rows in {"train": work.train, **work.aside, **work.evaluation}.items()},
        max_tokens=work.max_tokens,
        full_rows=work.full_rows,
        max_target=work.max_target,
        full_targets=work.full_targets,
        adapters=adapters,
        keep=keep,
        trainable=(_size(before), None if measured else _size(after)),
        optimizer_bytes=(_bytes(before, recipe), None if measured else _bytes(after, recipe)),
        steps=setting.steps,
        select_steps=None if choice is None else choice.steps,
        learning_rate=recipe.training.learning_rate,
    )
    return plan, choice


def _prepared(setting: Setting, method: Method) -> Prepared:
    try:
        return method.prepare(setting)
    except WeightLoraError:
        raise
    except Exception as error:  # PEFT takes any value, and fails where it uses it
        if not setting.options:
            raise
        raise ConfigError(f"method_options={setting.options} do not fit: {first_line(error)}.") from error


def _size(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _count(model: nn.Module) -> int:
    """The number of modules that PEFT adapts, with any of its methods."""
    return sum(isinstance(module, BaseTunerLayer) for module in model.modules()) if isinstance(model, PeftModel) else 0


def _filling(model: nn.Module, trainable: list[nn.Parameter], config: WeightLoraConfig) -> list[nn.Parameter]:
    """As many parameters as stay at most: the largest adapters that fit, and one more for the rest of the budget.

    With WeightLoRA+ all stay.
    """
    if config.expand != "none":
        return trainable
    adapters = find_adapters(model)
    sizes = [adapter.size for adapter in adapters]
    budget = replace(config, rounds=1, warmup_steps=0).budget_for(sizes)
    mask = budget.best(torch.tensor(sizes, dtype=torch.float64), sizes, 0)
    gone = {id(p) for adapter, stays in zip(adapters, mask, strict=True) if not stays for p in adapter.parameters}
    number, parameters = budget.rounds[0]
    most = min(parameters, sum(sorted(sizes, reverse=True)[:number]))
    rest = most - sum(size for size, stays in zip(sizes, mask, strict=True) if stays)
    filler = [nn.Parameter(adapters[0].parameters[0].new_empty(rest, device="meta"))] if rest else []
    return [*(parameter for parameter in trainable if id(parameter) not in gone), *filler]


def _bytes(parameters: list[nn.Parameter], recipe: Recipe) -> int | None:
    """The size of the optimizer's state, from a step of the real optimizer on one empty tensor of each shape."""
    alike = Counter((parameter.shape, parameter.dtype) for parameter in parameters)
    try:
        make, settings = Trainer.get_optimizer_cls_and_kwargs(recipe.training)
        settings = {name: value for name, value in settings.items() if name != "fused"}
        twins = [nn.Parameter(torch.empty(shape, dtype=dtype, device="meta")) for shape, dtype in alike]
        for twin in twins:
            twin.grad = torch.empty_like(twin)
        optimizer = make(twins, **settings)
        optimizer.step()
    except (RuntimeError, ValueError, NotImplementedError, ImportError, AttributeError):
        return None  # 8-bit optimizers need their kernels
    states = [optimizer.state[twin] for twin in twins]
    numbers = alike.values()
    return sum(n * tensor.nbytes for n, state in zip(numbers, states, strict=True) for tensor in tensors_in(state))
