"""What the selection costs by number of adapters: a step by each rule, the disconnect, and the load of the result.

The model is a stack of small linear layers: what grows with the number of adapters is all there is to see. Seconds are
of processor time on one thread, so other processes do not count.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

from ..speed.variants import median_ratio

LINEARS = 6  # of a block
NEVER = 10**9  # the phase ends when it is told to


class Block(nn.Module):
    """Six linear layers, each with a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for i in range(LINEARS):
            self.add_module(f"linear_{i}", nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        for linear in self._modules.values():
            assert linear is not None
            x = x + 0.1 * linear(x).tanh()
        return x


class Stack(nn.Module):
    """`n / 6` blocks, so n linear layers; the layers beyond n are left out."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width) for _ in range(-(-n // LINEARS)))
        for i in range(n % LINEARS or LINEARS, LINEARS):
            del self.layers[-1]._modules[f"linear_{i}"]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layers:
            x = block(x)
        return x


@dataclass(frozen=True)
class Choice:
    """One disconnect. Seconds; `load` is `PeftModel.from_pretrained`, on a fresh model."""

    rule: str
    kept: int
    disconnect: float
    load: float


@dataclass(frozen=True)
class Growth:
    """The figures of a model with n adapters.

    Attributes:
        adapt: Seconds of `get_peft_model`, which no load can be faster than.
        step: Seconds of a training step with plain LoRA, and of its `optimizer.step()` alone.
        optimizer: Of this step, `optimizer.step()` alone.
        ratios: Rule -> a step of training with it / one without.
        optimizer_ratios: Rule -> `optimizer.step()` and `selector.step()` / `optimizer.step()` without the rule.
        adapter_milliseconds: Rule -> what it adds to a step, an adapter.
        choices: The disconnects.
    """

    n: int
    adapt: float
    step: float
    optimizer: float
    ratios: dict[str, float]
    optimizer_ratios: dict[str, float]
    adapter_milliseconds: dict[str, float]
    choices: list[Choice]


class Variant:
    """A model in training, with a rule or without, and the seconds of its steps."""

    def __init__(self, n: int, width: int, rank: int, rule: str | None, keep: int) -> None:
        self.base = lambda: make_base(n, width)
        start = time.process_time()
        targets = [f"linear_{i}" for i in range(LINEARS)]
        self.model = get_peft_model(self.base(), LoraConfig(r=rank, target_modules=targets))
        self.adapt = time.process_time() - start
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        self.rule = rule
        self.selector = None if rule is None else self.select(rule, keep)
        self.steps: list[float] = []
        self.updates: list[float] = []

    def select(self, rule: str, keep: int) -> WeightLora:
        settings: dict[str, Any] = {"selection": rule, "keep": keep, "select_steps": NEVER}
        # without a threshold or a projection that would switch adapters off while they are timed
        settings |= {"threshold_every": NEVER} if rule == "stoiht" else {}
        return WeightLora(self.model, self.optimizer, WeightLoraConfig(**settings))

    def step(self, x: Tensor) -> None:
        """One step of training, timed."""
        start = time.process_time()
        self.model(x).square().mean().backward()
        middle = time.process_time()
        self.optimizer.step()
        if self.selector is not None:
            self.selector.step()
        end = time.process_time()
        self.optimizer.zero_grad()
        self.steps.append(time.process_time() - start)
        self.updates.append(end - middle)

    def choose(self) -> Choice:
        """Decide, save, and load what was saved with plain PEFT."""
        assert self.selector is not None and self.rule is not None
        disconnect = _seconds(self.selector.finish)
        base = self.base()
        with tempfile.TemporaryDirectory() as directory:
            self.model.save_pretrained(directory)
            start = time.process_time()
            loaded = PeftModel.from_pretrained(base, Path(directory))
            load = time.process_time() - start
        names = [adapter.name for adapter in find_adapters(loaded, check=False)]
        assert names == self.selector.kept
        return Choice(self.rule, len(names), disconnect, load)


def make_base(n: int, width: int) -> Stack:
    """The model without adapters, always with the same weights."""
    torch.manual_seed(0)
    return Stack(n, width)


def measure_growth(n: int, rounds: int, width: int = 16, rank: int = 4) -> Growth:
    """The figures of one number of adapters: plain LoRA, credit and gates take turns, `rounds` timed steps each."""
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half = max(1, n // 2)
        variants = [Variant(n, width, rank, rule, half) for rule in (None, "credit", "stoiht")]
        x = torch.randn(4, width, generator=torch.Generator().manual_seed(1))
        for _ in range(2 + rounds):
            for variant in variants:
                variant.step(x)
        for variant in variants:
            del variant.steps[:2], variant.updates[:2]  # the first steps make the optimizer's state
        plain, *ruled = variants
        choices = [variant.choose() for variant in ruled]
        for keep in {max(1, n // 100), n} - {half}:
            variant = Variant(n, width, rank, "credit", keep)
            variant.step(x)
            choices.append(variant.choose())
    return Growth(
        n=n,
        adapt=plain.adapt,
        step=statistics.median(plain.steps),
        optimizer=statistics.median(plain.updates),
        ratios={str(v.rule): median_ratio(v.steps, plain.steps) for v in ruled},
        optimizer_ratios={str(v.rule): median_ratio(v.updates, plain.updates) for v in ruled},
        adapter_milliseconds={
            str(v.rule): statistics.median(a - b for a, b in zip(v.steps, plain.steps, strict=True)) / n * 1000
            for v in ruled
        },
        choices=sorted(choices, key=lambda choice: (choice.rule, choice.kept)),
    )


def to_rows(figures: list[Growth]) -> list[dict[str, Any]]:
    """What goes into the JSON file."""
    return [asdict(one) for one in figures]


def _seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
