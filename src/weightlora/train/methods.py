"""The methods of `weightlora train`: name -> how to prepare the model.

Each method configures PEFT or this package; `full` uses neither. Methods that select modules start from the same LoRA
on all modules. So at one seed the adapters that they keep start with the same values.
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import TrainerCallback

from .. import WeightLoraCallback, WeightLoraConfig
from ..adapters import LoraAdapter, find_adapters
from ..adapters.outcome import describe_
from ..adapters.surgery import disconnect_
from ..layers import blocks_of
from .lists import in_list, in_peft_default


@dataclass(frozen=True)
class Setting:
    """What a method needs to know of a run.

    Attributes:
        model: The base model with its task head; no adapters yet.
        target: Fields of PEFT's config that say what is adapted, with `task_type` and `modules_to_save`.
        rank: r of LoRA on all modules.
        alpha: Its `lora_alpha`. Methods with another rank keep the ratio `alpha / rank`.
        dropout: Its `lora_dropout`.
        keep: K.
        select_steps: T, or a fraction of the training; None if it is not given.
        steps: Optimizer steps of the whole run.
        seed: Seed of the run.
        batches: Yields training batches, for methods that look at data before training.
        options: More fields for `WeightLoraConfig`, or for PEFT's config.
    """

    model: nn.Module
    target: dict[str, Any]
    rank: int
    alpha: int
    dropout: float
    keep: int
    select_steps: int | float | None
    steps: int
    seed: int
    batches: Callable[[], Iterable[dict[str, Tensor]]]
    options: dict[str, Any] = field(default_factory=dict)

    def lora(self, rank: int | None = None, **settings: Any) -> PeftModel:
        """LoRA on all modules, at the given rank and the setting's scaling."""
        rank = rank or self.rank
        alpha = self.alpha * rank / self.rank
        base = {"r": rank, "lora_alpha": alpha, "lora_dropout": self.dropout, **self.target} | settings
        saved = {*self.target.get("modules_to_save", ()), *(settings.get("modules_to_save") or ())}
        config = LoraConfig(**(base | {"modules_to_save": sorted(saved) or None}))
        with warnings.catch_warnings():
            if not (settings.get("rank_pattern") or settings.get("alpha_pattern")):
                # PEFT's own and ours are of fused experts, too, and PEFT looks for them among the modules
                warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match")
            return get_peft_model(self.model, config)


@dataclass(frozen=True)
class Prepared:
    """A model ready to train, and the callbacks its method needs.

    `candidates` is set by methods that choose before training: the name and size of each adapter before the choice.
    """

    model: nn.Module
    callbacks: tuple[TrainerCallback, ...] = ()
    candidates: dict[str, int] | None = None

    @property
    def selection(self) -> WeightLoraCallback | None:
        """The callback that chooses; None if the method chooses before the Trainer exists, or makes no choice."""
        return next((c for c in self.callbacks if isinstance(c, WeightLoraCallback)), None)


def keep_only(model: PeftModel, names: Iterable[str]) -> Prepared:
    """LoRA on the named modules only."""
    kept, adapters = set(names), find_adapters(model)
    candidates = {adapter.name: adapter.size for adapter in adapters}
    disconnect_(model, [adapter for adapter in adapters if adapter.name not in kept])
    describe_(model, "default")
    return Prepared(model, candidates=candidates)


@contextmanager
def all_adapters(setting: Setting) -> Iterator[list[LoraAdapter]]:
    """Inside, the model has LoRA on all modules. Afterwards it is as before, and so are the random numbers."""
    with torch.random.fork_rng(devices=[]):
        model = setting.lora()
        try:
            yield find_adapters(model)
        finally:
            model.unload()


def sizes_of(setting: Setting) -> dict[str, int]:
    """Name -> parameters of each adapter of LoRA on all modules."""
    with all_adapters(setting) as adapters:
        return {adapter.name: adapter.size for adapter in adapters}


def lora(setting: Setting, **settings: Any) -> Prepared:
    """LoRA on all modules, or another kind of it."""
    return Prepared(setting.lora(**settings, **setting.options))


def equal_rank(setting: Setting, sizes: Mapping[str, int], names: Collection[str]) -> int:
    """The rank at which adapters on the named modules have about as many parameters as a choice may keep.

    Args:
        setting: The budget is `keep_parameters` of its options, or K / n of the parameters.
        sizes: Name -> parameters of each adapter of LoRA on all modules.
        names: At least one of these modules.
    """
    total, most = sum(sizes.values()), setting.options.get("keep_parameters")
    if most is None:
        most = setting.keep / len(sizes)
    parameters = most * total if isinstance(most, float) else min(most, total)
    return max(1, round(parameters * setting.rank / sum(sizes[name] for name in names)))


def lora_equal(setting: Setting) -> Prepared:
    """LoRA on all modules, at the rank with about as many trainable parameters as a choice may keep."""
    sizes = sizes_of(setting)
    return Prepared(setting.lora(equal_rank(setting, sizes, sizes)))


def on_list(setting: Setting, choose: Callable[[Iterable[str]], list[str]]) -> Prepared:
    """LoRA on what `choose` takes of all modules, at the rank with about as many parameters as a choice may keep."""
    sizes = sizes_of(setting)
    names = choose(sizes)
    return keep_only(setting.lora(equal_rank(setting, sizes, names)), names)


def peft_default(setting: Setting) -> Prepared:
    """LoRA on the list that PEFT has for the architecture."""
    return on_list(setting, partial(in_peft_default, setting.model))


def listed(setting: Setting) -> Prepared:
    """LoRA on the list of a user."""
    return on_list(setting, partial(in_list, setting.options["listed"]))


def top(setting: Setting) -> Prepared:
    """The K modules nearest to the output."""
    model = setting.lora()
    return keep_only(model, [adapter.name for adapter in find_adapters(model)][-setting.keep :])


def last_layers(setting: Setting) -> Prepared:
    """All modules of the last layers: as many layers as fit into K modules, and at least one."""
    model = setting.lora()
    layers: dict[str, list[str]] = {}
    every = [adapter.name for adapter in find_adapters(model)]
    for block, name in zip(blocks_of(every), every, strict=True):
        layers.setdefault(block, []).append(name)
    names: list[str] = []
    for layer in reversed(list(layers.values())):
        if names and len(names) + len(layer) > setting.keep:
            break
        names += layer
    return keep_only(model, names)


def weightlora(
    setting: Setting, make: Callable[..., WeightLoraConfig] = WeightLoraConfig, **settings: Any
) -> Prepared:
    """The default of this package, or a choice with other settings."""
    base = {"keep": setting.keep, "select_steps": setting.select_steps, "seed": setting.seed}
    config = make(**(base | settings | setting.options)).resolve(setting.steps)
    return Prepared(setting.lora(), (WeightLoraCallback(config),))


def random(setting: Setting) -> Prepared:
    """K random modules, chosen before training (RLoRA)."""
    return weightlora(setting, selection="random", select_steps=0)


def full(setting: Setting) -> Prepared:
    """Full fine-tuning."""
    return Prepared(setting.model)


FULL_RATE = 5e-5
LORA_RATE = 10 * FULL_RATE
"""Default learning rates for AdamW. The rate of full fine-tuning is Transformers' default. LoRA needs about ten times
as much: PEFT's examples and the QLoRA paper use 2e-4 for large models to 1e-3 for small ones."""


@dataclass(frozen=True)
class Method:
    """One entry of the registry of methods.

    Attributes:
        prepare: Adds the adapters to the model, in the plan and in the run.
        options: Keys of `method_options` that the method reads.
        learning_rate: The default.
        adapts: Whether the model gets adapters. False for full fine-tuning.
        reads_weights: Whether `prepare` runs the model or looks at its weights. The plan has no weights, so it takes
            LoRA on all modules instead.
        keeps: Whether a method that reads weights keeps K adapters.
        unused: Arguments of a choice that have no effect with this method.
    """

    prepare: Callable[[Setting], Prepared]
    options: frozenset[str] = frozenset()
    learning_rate: float = LORA_RATE
    adapts: bool = True
    reads_weights: bool = False
    keeps: bool = False
    unused: frozenset[str] = frozenset()


Methods = Mapping[str, Method]

LORA_OPTIONS = frozenset(field.name for field in fields(LoraConfig) if field.init) - {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules"),
}
"""Fields of PEFT's `LoraConfig` that `method_options` may set. Fields that have an argument are left out."""

CONFIG_OPTIONS = frozenset(field.name for field in fields(WeightLoraConfig)) - {"select_steps", "adapter_name"}
"""Fields of `WeightLoraConfig` that `method_options` may set."""

PARAMETERS, LIST = frozenset({"keep_parameters"}), frozenset({"listed"})
STEPS, CHOICE = frozenset({"select_steps"}), frozenset({"keep", "select_steps"})

METHODS: dict[str, Method] = {
    "lora": Method(lora, LORA_OPTIONS, unused=CHOICE),
    "lora-equal": Method(lora_equal, PARAMETERS, unused=STEPS),
    "peft-default": Method(peft_default, PARAMETERS, unused=STEPS),
    "listed": Method(listed, PARAMETERS | LIST, unused=STEPS),
    "random": Method(random, CONFIG_OPTIONS - {"selection"}, unused=STEPS),
    "top": Method(top, unused=STEPS),
    "last-layers": Method(last_layers, unused=STEPS),
    "weightlora": Method(weightlora, CONFIG_OPTIONS),
    "weightlora-plus": Method(partial(weightlora, expand="qr"), CONFIG_OPTIONS),
    "weightlora-paper": Method(partial(weightlora, make=WeightLoraConfig.paper), CONFIG_OPTIONS),
    "weightlora-paper-plus": Method(partial(weightlora, make=WeightLoraConfig.paper, plus=True), CONFIG_OPTIONS),
    "dora": Method(partial(lora, use_dora=True), unused=CHOICE),
    "rslora": Method(partial(lora, use_rslora=True), unused=CHOICE),
    "full": Method(full, learning_rate=FULL_RATE, adapts=False, unused=CHOICE),
}

IN_BENCHMARKS = ("adalora", "eva", "grad-norm", "kappa", "loha", "lokr", "vera")
"""Methods that exist only to be compared. `benchmarks.methods.peft` has them."""
