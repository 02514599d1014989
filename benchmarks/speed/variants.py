"""What takes turns: LoRA on all modules, a selection, the same model after the choice, and other methods."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch import Tensor, nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import LoraAdapter, find_adapters
from weightlora.errors import ConfigError
from weightlora.rules import RULES, Rule, Settings

from .models import BATCHES, Subject

RANK, ALPHA, LEARNING_RATE = 8, 32, 5e-4
BACKEND = "inductor"  # of torch.compile
NEVER = 10**9  # the selection does not end while it is timed
PARTS = ("forward", "backward", "hooks", "optimizer", "selector")
"""`hooks` are ours on the optimizer: the guard, and what a rule reads before a step."""
LABELS = {
    "lora": "LoRA on all modules",
    "halves": "the same, each batch in two halves",
    "recomputed": "the same, with gradient checkpointing",
    "credit": "selecting, with update credit",
    "low": "selecting, with update credit in low memory",
    "gates": "selecting, with gates",
    "after": "after the choice",
    "limit": "LoRA on the same modules",
    "top": "LoRA on as many nearest the output",
    "adalora": "AdaLoRA",
    "dora": "DoRA on all modules",
    "full": "full fine-tuning",
}
NEEDED = ("lora", "credit", "low", "after", "limit")
"""Those that the summary compares."""
SPARING = ("halves", "recomputed")
"""LoRA on all modules with less memory, by what every trainer has."""


@dataclass
class Variant:
    """A model in training.

    Attributes:
        seconds: Part of a step -> its times, one a timed step.
        pieces: The number of pieces of a batch, whose gradients are added (gradient accumulation).
    """

    key: str
    model: Any
    optimizer: torch.optim.Optimizer
    selector: WeightLora | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    clock: "Clock | None" = None
    pieces: int = 1

    @property
    def steps(self) -> list[float]:
        """Times of whole steps."""
        return [sum(parts) for parts in zip(*self.seconds.values(), strict=True)]

    def split(self, batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The pieces of a batch. All batches here have no padding, so the mean of their losses is the batch's loss."""
        pieces = zip(*(tensor.chunk(self.pieces) for tensor in batch.values()), strict=True)
        return [dict(zip(batch, piece, strict=True)) for piece in pieces]

    def parts(self, batch: Mapping[str, Tensor]) -> Iterator[None]:
        """One step of training, which pauses after each forward and backward pass, the optimizer and the selector."""
        for piece in self.split(batch):
            loss = self.model(**piece).loss / self.pieces
            yield
            loss.backward()
            yield
        self.optimizer.step()
        if self.key == "adalora":
            self.model.base_model.update_and_allocate(BATCHES)
        yield
        if self.selector is not None:
            self.selector.step()
        yield
        self.optimizer.zero_grad()

    def step(self, batch: Mapping[str, Tensor], timed: bool = True) -> None:
        """One step of training."""
        self.clock = Clock(batch["input_ids"].device)
        for _ in self.parts(batch):
            self.clock.lap()
        if timed:
            *passes, begin, hooks, optimizer, selector = self.clock.read()
            forward, backward = sum(passes[::2]), sum(passes[1::2])
            for part, took in zip(PARTS, (forward, backward, hooks, begin + optimizer, selector), strict=True):
                self.seconds[part].append(took)

    def mark(self) -> None:
        """Let a lap end here whenever the optimizer steps: once before our hooks are made, and once after."""
        self.optimizer.register_step_pre_hook(lambda *_: self.clock.lap() if self.clock else None)


class Clock:
    """Seconds between laps; on a GPU by events, so that a lap does not wait."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: list[Any] = []
        self.lap()

    def lap(self) -> None:
        """End a part."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.laps.append(event)
        else:
            self.laps.append(time.perf_counter())

    def read(self) -> list[float]:
        """The seconds of each part."""
        pairs = list(pairwise(self.laps))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [begin.elapsed_time(end) / 1000 for begin, end in pairs]
        return [end - begin for begin, end in pairs]


def build(subject: Subject, wanted: tuple[str, ...]) -> dict[str, Variant]:
    """The variants that are wanted, each after `BATCHES` steps of warm-up, and one after which nothing is compiled.

    `after` has chosen what the subject says, or else by the credit of its warm-up, and `limit` is plain LoRA on that.
    """
    variants: dict[str, Variant] = {}
    for key in [name for name in LABELS if name in wanted]:
        after = variants["after"].selector if "after" in variants else None
        kept = [] if after is None else after.kept
        variant = variants[key] = BUILDERS[key](key, subject, kept)
        variant.mark()
        for batch in (*subject.batches, subject.batches[0]):  # the last one for `after`, whose model changed before it
            variant.step(batch, timed=False)
    return variants


def lora(key: str, subject: Subject, target: Any = None, recomputed: bool = False, **settings: Any) -> Variant:
    """LoRA on all modules, or on those named."""
    changed = {} if target is None else {"target_modules": target}
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, **{**subject.target, **changed}, **settings)
    model = get_peft_model(subject.fresh(), config, autocast_adapter_dtype=subject.how.dtype == "float32")
    if subject.how.checkpointing or recomputed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if subject.how.compiled:
        model.compile(backend=BACKEND)
    return _variant(key, model)


def _halves(key: str, subject: Subject, kept: list[str]) -> Variant:
    variant = lora(key, subject)
    variant.pieces = 2
    return variant


def selecting(key: str, subject: Subject, **settings: Any) -> Variant:
    """A selection on LoRA on all modules."""
    variant = lora(key, subject)
    config = WeightLoraConfig(keep=subject.keep, **{"select_steps": NEVER, **settings})
    variant.selector = WeightLora(variant.model, variant.optimizer, config)
    return variant


def _gates(key: str, subject: Subject, kept: list[str]) -> Variant:
    return selecting(key, subject, selection="stoiht", threshold_every=NEVER)


def _after(key: str, subject: Subject, kept: list[str]) -> Variant:
    if not subject.chosen:
        return selecting(key, subject, selection="credit", select_steps=BATCHES)

    class Given(Rule):
        """Scores 1 for what the subject says, and 0 for all others."""

        name = score_label = "given"

        def __init__(self, adapters: list[LoraAdapter], optimizer: torch.optim.Optimizer, settings: Settings) -> None:
            super().__init__(adapters, optimizer, settings)
            self.score = torch.tensor([a.name in subject.chosen for a in adapters], dtype=torch.float64)
            if not self.score.sum() == len(subject.chosen) == subject.keep:
                raise ConfigError(
                    f"the subject names {len(subject.chosen)} adapters, {int(self.score.sum())} of them on the model, "
                    f"and keeps {subject.keep}: name as many of the model as it keeps."
                )

    with patch.dict(RULES, given=Given):
        return selecting(key, subject, selection="given", select_steps=BATCHES)


def _adalora(key: str, subject: Subject, kept: list[str]) -> Variant:
    config = AdaLoraConfig(
        init_r=RANK, target_r=RANK // 2, tinit=0, tfinal=0, total_step=NEVER, lora_alpha=ALPHA, **subject.target
    )
    return _variant(key, get_peft_model(subject.fresh(), config))


def _top(key: str, subject: Subject, kept: list[str]) -> Variant:
    model = get_peft_model(subject.fresh(), LoraConfig(r=1, **subject.target))
    return lora(key, subject, [adapter.name for adapter in find_adapters(model)][-subject.keep :])


def _variant(key: str, model: nn.Module) -> Variant:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    variant = Variant(key, model, torch.optim.AdamW(trained, lr=LEARNING_RATE))
    variant.mark()
    return variant


BUILDERS: dict[str, Callable[[str, Subject, list[str]], Variant]] = {
    "lora": lambda key, subject, kept: lora(key, subject),
    "halves": _halves,
    "recomputed": lambda key, subject, kept: lora(key, subject, recomputed=True),
    "credit": lambda key, subject, kept: selecting(key, subject, selection="credit"),
    "low": lambda key, subject, kept: selecting(key, subject, selection="credit", select_memory="low"),
    "gates": _gates,
    "after": _after,
    "limit": lambda key, subject, kept: lora(key, subject, kept),
    "top": _top,
    "adalora": _adalora,
    "dora": lambda key, subject, kept: lora(key, subject, use_dora=True),
    "full": lambda key, subject, kept: _variant(key, subject.fresh()),
}


def median_ratio(one: list[float], other: list[float]) -> float:
    """The median over rounds of the quotient of two steps in one round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))
