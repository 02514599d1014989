"""How evidence on the adapters is gathered: the paper's gates (StoIHT), or chance. Update credit has its own room.

A rule holds two float64 CPU tensors with an entry for every adapter still on the model: `score`, what the choice ranks
by, and `omega`, the gates. `take` reads what the latest step tells, `update` takes it in, `keep` follows a decision,
`restore` sets both, and `close` leaves nothing of the rule on the model or the optimizer.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..adapters.variants import refuse_gates
from ..config import WeightLoraConfig
from .credit import UpdateCredit
from .gates import attach_gate, detach_gate, set_gates_, take_gradients

Projection = Callable[[Tensor], Tensor]


class Rule(Protocol):
    score: Tensor
    omega: Tensor

    def take(self, grad_scale: float) -> Tensor | None: ...
    def update(self, evidence: Tensor, warmup: bool, project: Projection | None) -> None: ...
    def keep(self, mask: Tensor) -> None: ...
    def restore(self, score: Tensor, omega: Tensor) -> None: ...
    def close(self) -> None: ...


def make_rule(adapters: list[LoraAdapter], optimizer: Optimizer, config: WeightLoraConfig) -> Rule:
    """The rule that `config.selection` names."""
    if config.selection == "stoiht":
        return StoIHT(adapters, optimizer, config)
    if config.selection == "credit":
        return UpdateCredit(adapters, optimizer)
    return Chance(len(adapters), config.seed)


class StoIHT:
    """Algorithm 1: `omega <- P(omega - eta dL/domega)`, by stochastic iterative hard thresholding.

    Raises:
        ValueError: If an adapter is of a kind that a gate cannot switch off.
    """

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, config: WeightLoraConfig) -> None:
        refuse_gates(adapters)
        self.gates = [attach_gate(adapter) for adapter in adapters]
        self.omega = torch.ones(len(adapters), dtype=torch.float64)
        self.score = self.omega.clone()
        self._optimizer, self._config = optimizer, config

    def take(self, grad_scale: float) -> Tensor:
        """The gates' gradients, without the loss scale."""
        gradients = take_gradients(self.gates)
        if gradients is None:
            raise ValueError(
                "no gate got a gradient: call step() after backward() on this model's loss, with the gated adapter "
                "active (fused LoRA kernels bypass gates; switch them off)."
            )
        return gradients / grad_scale

    def update(self, evidence: Tensor, warmup: bool, project: Projection | None) -> None:
        """In the warm-up the sum runs up in `score` while the gates stay at 1."""
        eta = self._config.omega_lr
        if self._config.omega_follows_lr:
            group = self._optimizer.param_groups[0]
            if "initial_lr" in group:  # set by LR schedulers
                eta *= float(group["lr"]) / float(group["initial_lr"])
        moved = self.score - eta * evidence
        if not bool(moved.isfinite().all()):
            raise ValueError(f"a gate would become infinite under omega_lr={self._config.omega_lr}: lower it.")
        # While B = 0 every gradient is 0, and there is nothing to rank.
        self.score = project(moved) if project and bool(evidence.any()) else moved
        if not warmup:
            self.omega = self.score.clone()
            set_gates_(self.gates, self.omega)

    def keep(self, mask: Tensor) -> None:
        for gate, kept in zip(self.gates, mask.tolist(), strict=True):
            if not kept:
                detach_gate(gate)
        self.gates = [gate for gate, kept in zip(self.gates, mask.tolist(), strict=True) if kept]
        self.restore(self.score[mask], self.omega[mask])

    def restore(self, score: Tensor, omega: Tensor) -> None:
        self.score, self.omega = score, omega
        set_gates_(self.gates, omega)

    def close(self) -> None:
        for gate in self.gates:
            detach_gate(gate)


class Chance:
    """RLoRA, the control: every adapter draws a number once, and the highest stay."""

    def __init__(self, n: int, seed: int) -> None:
        self.score = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        self.omega = torch.ones(n, dtype=torch.float64)

    def take(self, grad_scale: float) -> Tensor:
        return torch.zeros_like(self.score)

    def update(self, evidence: Tensor, warmup: bool, project: Projection | None) -> None:
        pass

    def keep(self, mask: Tensor) -> None:
        self.restore(self.score[mask], self.omega[mask])

    def restore(self, score: Tensor, omega: Tensor) -> None:
        self.score, self.omega = score, omega

    def close(self) -> None:
        pass
