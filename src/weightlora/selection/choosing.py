"""`select`: the answer to "what do I put under `target_modules`?" for a model in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from accelerate.utils import set_seed
from peft import LoraConfig
from torch import nn
from torch.optim import AdamW
from tqdm.auto import tqdm

from ..adapters import find_adapters
from ..config import WeightLoraConfig, as_config
from ..engines.processes import has_group
from ..errors import ConfigError, DataError, ModelError
from ..loaders import same_batches
from ..probe import check_loss, own_loss
from ..rules import RULES
from ..selector import WeightLora
from ..values import is_number
from .adapting import adapted
from .borrowing import borrowed
from .combining import Wishes, check_wishes, combine
from .proportional import Start
from .record import Selection

LEARNING_RATE = 5e-4
TOTAL_STEPS = 500
"""What a fraction as `select_steps` is a fraction of, if nothing is given: by default it is 100 steps."""


def select(
    model: nn.Module,
    loader: Iterable[Any],
    config: WeightLoraConfig | None = None,
    *,
    lora: LoraConfig | None = None,
    learning_rate: float = LEARNING_RATE,
    total_steps: int | None = None,
    group: str = "none",
    seeds: int = 1,
    ranks: str = "equal",
    progress: bool | None = None,
) -> Selection:
    """Choose which modules of a model should get a LoRA adapter, and leave the model as it was.

    A base model gets LoRA adapters during the choice. A PEFT model uses its own adapters, and their values are
    restored. By default, the choice reads the gradients of a few batches, without an optimizer step. With
    `selection="credit"` or `"stoiht"`, the adapters train for `config.select_steps` steps of AdamW, in the dtype of
    the model.

    Afterwards parameters, buffers, hooks, gradients, configs, `requires_grad`, training mode and the state of the
    random number generators are as before, also after an error.

    Args:
        model: A base model or a PEFT model, on the device to work on.
        loader: Batches for `model(**batch).loss`: mappings from names to tensors, which are moved to the model's
            device. A rule that trains reads a data loader or a list as often as needed. The default reads
            `config.probe_batches`, or all if there are fewer, with a warning.
        config: The budget and the rule. None takes the defaults.
        lora: The adapters to add to a base model. None adds rank 8 to all linear modules, and for a classifier of
            Transformers the task type with which PEFT trains the head, too.
        learning_rate: Learning rate of AdamW, if the rule trains.
        total_steps: Steps of the planned training, if `config.select_steps` is a fraction. None means 500, so that a
            fraction of 0.2 is 100 steps.
        group: `"qkv"`, `"mlp"` or `"layer"` chooses the modules that kernels and servers fuse whole: the query, key
            and value of an attention, the layers of an MLP, or all modules of a layer. `.grouping` of the result says
            what that costs.
        seeds: Choose this many times, with other adapters and another order of the data, and keep the modules with
            the best mean place. `.seeds` of the result has for each module how many times it was chosen.
        ranks: `"proportional"` gives all modules ranks in proportion to the probe's scores, which together fit into
            `config.keep_parameters`. A module whose rank would be below a half is dropped.
        progress: Show a bar; None shows it in a terminal only.

    Returns:
        The choice. `.target_modules` has the names, and `.to("axolotl")` the text for another tool.

    Raises:
        ConfigError: If the settings do not fit one another or the model.
        DataError: If the loader has no batch or batches without a loss, or if it can be read only once and has fewer
            batches than `select_steps`.
        ModelError: If the model cannot be adapted or chosen from.
        TrainingError: If the loss or a gradient is NaN or infinite.

    Example:
        ```python
        choice = weightlora.select(model, loader, WeightLoraConfig(keep_parameters=0.25))
        LoraConfig(r=16, target_modules=choice.target_modules)
        ```
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model={model!r} is a {type(model).__name__}: pass the model itself.")
    if not hasattr(loader, "__iter__"):
        raise ConfigError(f"loader is a {type(loader).__name__}: pass a data loader, or a list of batches.")
    if has_group():
        raise ModelError(
            "select() works in one process, and this one belongs to a group: choose before init_process_group(), and "
            "give the chosen target_modules to all processes."
        )
    settings = _resolved(config, total_steps)
    if not (is_number(learning_rate) and 0 < learning_rate < 1e6):
        raise ConfigError(f"learning_rate={learning_rate!r} is not a valid step size: give a positive number.")
    wishes = Wishes(group, seeds, ranks)
    check_wishes(settings, wishes)
    if seeds > 1 and isinstance(loader, Iterator):
        raise ConfigError(
            f"seeds={seeds} reads the batches {seeds} times, and a {type(loader).__name__} can be read once: pass a "
            "data loader or a list."
        )
    runs: list[Selection] = []
    for seed in range(settings.seed, settings.seed + seeds):
        one = replace(settings, seed=seed)
        title = "selecting" if seeds == 1 else f"selecting, seed {seed}"
        run, starts = _run(model, loader, one, lora, learning_rate, wishes, _bar(title, progress))
        runs.append(run)
    return combine(runs, starts, settings, wishes)


def _resolved(config: WeightLoraConfig | None, total_steps: int | None) -> WeightLoraConfig:
    config = as_config(config)
    rule = RULES[config.selection]
    if not rule.probes and not rule.least_steps and config.rounds == 1:  # it would be trained for nothing
        return replace(config, select_steps=0)
    if total_steps is None and isinstance(config.select_steps, float):
        total_steps = TOTAL_STEPS
    return config.resolve(total_steps)


def _run(
    model: nn.Module,
    loader: Iterable[Any],
    config: WeightLoraConfig,
    lora: LoraConfig | None,
    learning_rate: float,
    wishes: Wishes,
    bar: Any,
) -> tuple[Selection, list[Start]]:
    """One selection, with the adapters before it."""
    with borrowed(model) as before, same_batches(loader), torch.enable_grad(), bar:
        set_seed(config.seed % 2**32)  # what adapters, dropout, samplers and collators draw from
        ready = adapted(model, lora)
        trainable = [parameter for parameter in ready.parameters() if parameter.requires_grad]
        before.keep_values(trainable)
        optimizer = AdamW(trainable or [nn.Parameter(torch.empty(0))], lr=learning_rate, weight_decay=0.0)
        starts = [*map(Start.of, find_adapters(ready, config.adapter_name))]
        check_wishes(config, wishes, starts)
        selector = WeightLora(ready, optimizer, config)
        if selector.needs_probe:
            selector.probe(_counted(loader, config.probe_batches, bar))
        if selector.phase != "train":
            _train_to_decision(selector, loader, bar)
        return Selection.of(selector), starts


def _train_to_decision(selector: WeightLora, loader: Iterable[Any], bar: Any) -> None:
    selector.model.train()
    steps = selector.config.steps
    for step, batch in enumerate(_counted(_cycled(loader, steps), steps, bar), start=1):
        loss = check_loss(
            own_loss(selector.model, batch),
            f"batch {step}",
            "give batches with labels, so that model(**batch).loss is there",
        )
        loss.backward()
        selector.optimizer.step()
        selector.step()
        selector.optimizer.zero_grad(set_to_none=True)


def _cycled(loader: Iterable[Any], steps: int) -> Iterator[Any]:
    """So many batches; a loader that ends is read again.

    Raises:
        DataError: If it has none, or it cannot be read again.
    """
    done = 0
    while done < steps:
        before = done
        for batch in islice(loader, steps - done):
            done += 1
            yield batch
        if done == 0:
            raise DataError("the loader gave no batch, so there is nothing to choose by: give it at least one.")
        if done < steps and (done == before or isinstance(loader, Iterator)):
            raise DataError(
                f"the loader ended after {done} of {steps} steps, and a {type(loader).__name__} can be read once: "
                "pass a data loader or a list, or lower select_steps."
            )


def _counted(batches: Iterable[Any], total: int, bar: Any) -> Iterator[Any]:
    bar.total = total
    for batch in islice(batches, total):
        yield batch
        bar.update()


def _bar(title: str, progress: bool | None) -> Any:
    return tqdm(desc=title, unit="step", leave=False, disable=None if progress is None else not progress)
