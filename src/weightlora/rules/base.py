"""What every rule has in common: the evidence it holds, and what the selector asks of it."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, compress
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..errors import TrainingError
from ..gradients import Average

Best = Callable[[Tensor], Tensor]
"""Maps scores of shape `(n,)` to the mask of those that the budget keeps, the largest first."""


FEW_STEPS = 30  # with fewer, B is still nearly 0, and what a rule reads is mostly noise

_HOOKS: "WeakKeyDictionary[Any, dict[str, tuple[list[Any], list[Any]]]]" = WeakKeyDictionary()
"""The hooks of the latest rule on an adapter, by its layer and adapter name."""


class Settings(Protocol):
    """What a rule reads of the settings of a run; `WeightLoraConfig` has it all."""

    seed: int
    keep: int | float | None
    warmup_steps: int
    threshold_every: int
    omega_lr: float
    omega_follows_lr: bool
    constraint: Any
    rank_by: Any


class Rule:
    """Gathers evidence on adapters, and ranks them by it.

    A rule is created with the adapters on the model. In each optimizer step of the selection phase the selector calls
    `take`, averages what it returns over the processes, and passes that to `update`. With a rule that probes, this
    happens once, before the first step, with the gradients of all batches of the probe added up inside `watching`. At
    the end of a round the selector calls `decide`, then `keep`. A run that resumes calls `restore`. `close` leaves
    nothing of the rule on the model or the optimizer; another rule on the same adapters does so, too, because a
    selection may have been given up, such as by a notebook's cell that runs again.

    Attributes:
        name: What `WeightLoraConfig.selection` calls the rule.
        score_label: What the score is, for tables and pictures.
        least_steps: Optimizer steps before there is any evidence.
        probes: Whether the evidence comes from a probe before training, and not from optimizer steps.
        has_gates: Whether the rule multiplies each adapter by a gate. Only then the settings of gates have an effect.
        shares_parameters: Whether K of n adapters may have at most K / n of the parameters, unless the user sets
            another bound.
        compares_blocks: Whether the scores of adapters of two blocks can be compared.
        score: What `decide` ranks by. Float64 on the CPU, shape `(n,)`, an entry for each adapter still on the model.
        omega: The gates, in the same layout. All 1 for a rule without gates.
        hooks: What is removed when the rule closes, or when another one takes its place.
        lasting: What is removed only when another rule takes its place.
    """

    name: ClassVar[str]
    score_label: ClassVar[str]
    least_steps: ClassVar[int] = 0
    probes: ClassVar[bool] = False
    has_gates: ClassVar[bool] = False
    shares_parameters: ClassVar[bool] = False
    compares_blocks: ClassVar[bool] = True

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        self.score = torch.zeros(len(adapters), dtype=torch.float64, device="cpu")
        self.omega = torch.ones(len(adapters), dtype=torch.float64, device="cpu")
        self._adapters = adapters
        self.hooks, self.lasting = list[Any](), list[Any]()
        for adapter in adapters:
            of_layer = _HOOKS.setdefault(adapter.layer, {})
            for hook in chain(*of_layer.get(adapter.adapter_name, ())):
                hook.remove()
            of_layer[adapter.adapter_name] = self.hooks, self.lasting

    def warn_of_few_steps(self, steps: int) -> None:
        """Warn if so many steps are thin evidence."""
        if self.least_steps and steps < FEW_STEPS:
            warnings.warn(
                f"the adapters are chosen after only {steps} steps: select for {FEW_STEPS} steps or more.",
                stacklevel=4,
            )

    def watching(self, average: Average) -> AbstractContextManager[None]:
        """Inside are the backward passes of a probe, for rules that read more of them than `.grad`."""
        return nullcontext()

    def take(self, grad_scale: float) -> Tensor | None:
        """Evidence of the latest optimizer step, shape `(n,)`; None if there was no step since the last call.

        Args:
            grad_scale: The loss scale that gradients still carry.

        Raises:
            TrainingError: If the gradients that the rule reads are not there.
        """
        return torch.zeros_like(self.score)

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """Take in the evidence of step number `step` (the first is 1)."""

    def unseen(self) -> Tensor:
        """Mask of the adapters on which there is no evidence, shape `(n,)`: they never ran, so their score is 0."""
        return self.score == 0

    def decide(self, best: Best) -> Tensor:
        """Mask of the adapters that stay after this round: one without evidence never beats one that has some."""
        keep = best(rank_last(self.score, self.unseen()))
        self.warn_of_unseen(keep)
        return keep

    def check_differs(self, steps: int) -> None:
        """Raise a `TrainingError` if all scores are equal after so many steps."""
        if (self.score == self.score[0]).all():
            raise TrainingError(
                f"all adapters score the same after {steps} steps, so there is nothing to choose by: train for more "
                "steps before the decision."
            )

    def warn_of_unseen(self, keep: Tensor) -> None:
        """Warn if the budget has room for adapters on which there is no evidence."""
        if guessed := int((keep & self.unseen()).sum()):
            warnings.warn(
                f"{guessed} of the {int(keep.sum())} adapters that stay got no gradient, so nothing is known of them: "
                "keep fewer, leave modules that the model does not run out of target_modules, and set "
                "use_reentrant=False if you use gradient checkpointing.",
                stacklevel=5,
            )

    def keep(self, mask: Tensor) -> None:
        """Forget the adapters that left the model."""
        self._adapters = list(compress(self._adapters, mask.tolist()))
        self.restore(self.score[mask], self.omega[mask])

    def restore(self, score: Tensor, omega: Tensor) -> None:
        """Set the evidence to what an earlier run had."""
        self.score, self.omega = score, omega

    def close(self) -> None:
        """Remove all hooks, and forget all adapters, or layers that left the model would stay in memory."""
        self._adapters = []
        for hook in self.hooks:
            hook.remove()


def rank_last(score: Tensor, last: Tensor) -> Tensor:
    """Scores by which the adapters in the mask `last` come after all others, the larger of their scores first.

    Args:
        score: Shape `(n,)`, finite; in [0, 1] where `last` is true.
        last: Shape `(n,)`.
    """
    if not bool(last.any()) or bool(last.all()):
        return score
    low, high = score[~last].min(), score[~last].max()
    gap = high - low + low.abs().clamp(min=1)  # is not rounded away, however large the scores are
    return torch.where(last, low - (2 - score) * gap, score)


def check_finite(evidence: Tensor, adapters: list[LoraAdapter], where: str) -> None:
    """Raise a `TrainingError` that names the first adapter with evidence that is NaN or infinite.

    Args:
        evidence: Shape `(n,)`.
        adapters: The n adapters.
        where: The end of the message: where it was found, and the remedy.
    """
    if not bool(evidence.isfinite().all()):
        worst = int((~evidence.isfinite()).nonzero()[0])
        raise TrainingError(
            f"the evidence on adapter {adapters[worst].name!r} is {float(evidence[worst])} in {where}."
        )
