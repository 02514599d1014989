"""The package's probe, after which the A of what it keeps starts along the gradient instead of at random.

Each row of A is a right singular vector of the gradient of the frozen weight, the largest singular values first, as in
LoRA-GA (arXiv 2407.05000). B stays 0, so the model still starts as without adapters.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from weightlora.adapters import LoraAdapter
from weightlora.gradients import Average
from weightlora.rules import RULES, GradientProbe, Settings
from weightlora.train.methods import Method, Prepared, Setting

from .probes import probe

ROWS = 64
"""Random combinations of a gradient's rows, among which its largest directions are found."""

SCALE = 0.5
"""Length of the new rows of A, as a multiple of the mean length of PEFT's own."""


@contextmanager
def sketched(adapters: list[LoraAdapter]) -> Iterator[dict[LoraAdapter, Tensor]]:
    """Inside, backward passes add up random combinations of the rows of each frozen weight's gradient.

    Yields:
        By adapter, on a linear layer, the sums: shape `(ROWS, in)`.
    """
    sums = {}
    with ExitStack() as hooks:
        for adapter in adapters:
            sums[adapter] = torch.zeros(ROWS, adapter.factors[0].shape[1], device=adapter.factors[0].device)
            for hook in _watch(adapter, sums[adapter]):
                hooks.callback(hook.remove)
        yield sums


def _watch(adapter: LoraAdapter, total: Tensor) -> Iterator[Any]:
    seen: list[Tensor] = []
    draw = torch.Generator().manual_seed(0)
    combinations = torch.randn(len(adapter.factors[1]), ROWS, generator=draw).to(total)

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(inputs[0].detach().flatten(0, -2))

    def follow(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        output.register_hook(partial(add, seen.pop()))

    def add(before: Tensor, gradient: Tensor) -> None:
        total.add_((gradient.flatten(0, -2) @ combinations).T @ before)

    yield adapter.layer.lora_A[adapter.adapter_name].register_forward_pre_hook(note)
    yield adapter.layer.lora_B[adapter.adapter_name].register_forward_hook(follow)


class AlongGradient(GradientProbe):
    """The probe, which also draws the A of the adapters that it keeps anew."""

    name = "along-gradient"

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        super().__init__(adapters, optimizer, settings)
        self._sketches: dict[LoraAdapter, Tensor] = {}

    @contextmanager
    def watching(self, average: Average) -> Iterator[None]:
        with sketched(self._adapters) as sums, super().watching(average):
            yield
        self._sketches = {adapter: average(total) for adapter, total in sums.items()}

    @torch.no_grad()
    def keep(self, mask: Tensor) -> None:
        super().keep(mask)
        sketches, self._sketches = self._sketches, {}  # which would keep the layers of all adapters in memory
        for adapter in self._adapters:
            a = adapter.factors[0]
            directions = torch.linalg.svd(sketches[adapter], full_matrices=False).Vh[: len(a)]
            a[: len(directions)] = directions * SCALE / 3**0.5  # PEFT's entries have the variance 1 / (3 in)


RULES[AlongGradient.name] = AlongGradient


def along_gradient(setting: Setting) -> Prepared:
    """The default with this start."""
    return probe(replace(setting, options={"selection": AlongGradient.name} | setting.options))


METHODS = {"along-gradient": Method(along_gradient, frozenset({"keep_parameters"}))}
