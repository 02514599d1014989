"""The optimizers whose groups and state are edited in place. docs/support.md has a table of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from transformers.optimization import Adafactor


def of_bitsandbytes(name: str, **settings: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda groups: getattr(import_module("bitsandbytes").optim, name)(groups, lr=0.1, **settings)


@dataclass(frozen=True)
class OptimizerKind:
    """`moments` are the entries of its state that have the parameter's shape, and so can grow with it."""

    make: Callable[[Any], torch.optim.Optimizer]
    moments: set[str] = field(default_factory=set)
    stateless: bool = False
    needs: str = "torch"

    @property
    def note(self) -> str:
        if self.stateless:
            return "it has no state"
        if self.moments:
            return "the kept adapters keep their moments, also when `expand='random'` raises their rank"
        return "the kept adapters keep their state, which restarts when their rank grows"


ADAM = {"exp_avg", "exp_avg_sq"}
EIGHT_BIT = {"needs": "bitsandbytes"}

OPTIMIZERS = {
    "AdamW": OptimizerKind(lambda groups: torch.optim.AdamW(groups, lr=0.1), ADAM),
    "AdamW, fused": OptimizerKind(lambda groups: torch.optim.AdamW(groups, lr=0.1, fused=True), ADAM),
    "AdamW, foreach": OptimizerKind(lambda groups: torch.optim.AdamW(groups, lr=0.1, foreach=True), ADAM),
    "AdamW, amsgrad": OptimizerKind(
        lambda groups: torch.optim.AdamW(groups, lr=0.1, amsgrad=True), {*ADAM, "max_exp_avg_sq"}
    ),
    "SGD": OptimizerKind(lambda groups: torch.optim.SGD(groups, lr=0.1), stateless=True),
    "SGD, momentum": OptimizerKind(lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9), {"momentum_buffer"}),
    "Adagrad": OptimizerKind(lambda groups: torch.optim.Adagrad(groups, lr=0.1), {"sum"}),
    "Adafactor of torch": OptimizerKind(lambda groups: torch.optim.Adafactor(groups, lr=0.1)),
    "Adafactor of Transformers": OptimizerKind(
        lambda groups: Adafactor(groups, lr=0.1, relative_step=False, scale_parameter=False)
    ),
    "AdamW of bitsandbytes": OptimizerKind(of_bitsandbytes("AdamW"), {"state1", "state2"}, needs="bitsandbytes"),
    "AdamW, 8 bits": OptimizerKind(of_bitsandbytes("AdamW8bit", min_8bit_size=0), **EIGHT_BIT),
    "Lion": OptimizerKind(of_bitsandbytes("Lion"), {"state1"}, needs="bitsandbytes"),
    "Lion, 8 bits": OptimizerKind(of_bitsandbytes("Lion8bit", min_8bit_size=0), **EIGHT_BIT),
}
