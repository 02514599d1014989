"""The paper's rule: a trainable gate omega on each adapter, moved by StoIHT (arXiv 2506.02724, Algorithm 1)."""

from itertools import compress

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..adapters.gating import attach_gate, detach_gate, set_gates_, take_gradients
from ..adapters.variants import refuse
from ..budget import project_simplex, projects_after
from ..errors import TrainingError
from ..loss_scale import ScaleCheck
from .base import Best, Rule, Settings, rank_last


class StoIHT(Rule):
    """`omega <- P(omega - eta dL/domega)`, by stochastic iterative hard thresholding.

    The score is the gate. During the warm-up it moves, while the gates that act stay at 1.

    Raises:
        ModelError: If an adapter is of a kind that a gate cannot switch off.
    """

    name = "stoiht"
    score_label = "gate"
    least_steps = 2  # the first gradient of every gate is 0, because B = 0
    has_gates = True

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        refuse(adapters, "gates")
        super().__init__(adapters, optimizer, settings)
        self.gates = [attach_gate(adapter) for adapter in adapters]
        torch.compiler.reset()  # code that was compiled without the gates would go on without them
        self.score = self.omega.clone()
        self._optimizer, self._settings = optimizer, settings
        self._scale = ScaleCheck(optimizer, adapters)
        self.hooks += [self._scale.handle, *(hook for gate in self.gates for hook in gate.handles)]

    def take(self, grad_scale: float) -> Tensor:
        """The gates' gradients, without the loss scale."""
        if (gradients := take_gradients(self.gates)) is None:
            raise TrainingError(
                "no gate got a gradient: call step() after backward() on this model's loss, with the gated adapter "
                "active (fused LoRA kernels bypass gates; switch them off)."
            )
        return self._scale.unscaled(gradients, self.omega, grad_scale)

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """One gradient step of the gates; every `threshold_every` steps after the warm-up, the projection, too."""
        settings = self._settings
        eta = settings.omega_lr * (self._part_of_lr() if settings.omega_follows_lr else 1.0)
        moved = self.score - eta * evidence
        if not bool(moved.float().isfinite().all()):  # which the gates are on the model
            raise TrainingError(f"a gate would become infinite under omega_lr={settings.omega_lr}: lower it.")
        # While B = 0 every gradient is 0, and there is nothing to rank.
        if projects_after(step, settings.warmup_steps, settings.threshold_every) and bool(evidence.any()):
            if settings.constraint == "simplex":
                moved = _on_simplex(moved, torch.ones_like(moved, dtype=torch.bool))
            else:
                moved = torch.where(best(self._ranked(moved)), moved, 0.0)
        self.score = moved
        if step > settings.warmup_steps:
            self.omega = self.score.clone()
            set_gates_(self.gates, self.omega)

    def _part_of_lr(self) -> float:
        """The learning rate of the adapters, as a part of the rate that their schedule begins or peaks at.

        Schedulers that raise the rate above the one that they were given say nowhere where it ends, so 1 is the most.
        OneCycleLR begins far below its peak, and says where that is. ReduceLROnPlateau says nothing, so the rate of
        the first step is noted in the group, which is saved with the optimizer: not as `initial_lr`, where a schedule
        that is made later would begin.
        """
        trained = {id(parameter) for adapter in self._adapters for parameter in adapter.parameters}
        group = next(one for one in self._optimizer.param_groups if any(id(p) in trained for p in one["params"]))
        if not group["lr"]:
            return 0.0
        begun = group.get("initial_lr") or group.setdefault("first_lr", float(group["lr"]))
        return min(1.0, float(group["lr"]) / float(group.get("max_lr", begun)))

    def unseen(self) -> Tensor:
        """A gate that is exactly 1 never moved; one that is exactly 0 was switched off and has not moved since."""
        return _unmoved(self.score)

    def decide(self, best: Best) -> Tensor:
        """The forced projection at the end of a round. On the simplex, a gate that reaches 0 is dropped, too.

        Raises:
            TrainingError: If a number of adapters is to stay, and fewer gates differ from 0.
        """
        keep = best(self._ranked(self.score))
        if self._settings.constraint == "simplex":  # where 0 and 1 are what a projection gives, too
            self.score = _on_simplex(self.score, keep)
            keep = self.score != 0
        else:
            alive = keep & (self.score != 0)
            if self._settings.keep is not None and not torch.equal(alive, keep):
                raise TrainingError(
                    f"only {int(alive.sum())} of the {int(keep.sum())} adapters that are to stay have a gate other "
                    f"than 0 under omega_lr={self._settings.omega_lr}: lower it, or select for more steps."
                )
            self.warn_of_unseen(alive)
            keep, self.score = alive, torch.where(alive, self.score, 0.0)
        self.omega = self.score
        return keep

    def keep(self, mask: Tensor) -> None:
        for gate in compress(self.gates, (~mask).tolist()):
            detach_gate(gate)
        self.gates = list(compress(self.gates, mask.tolist()))
        super().keep(mask)

    def restore(self, score: Tensor, omega: Tensor) -> None:
        super().restore(score, omega)
        set_gates_(self.gates, omega)

    def _ranked(self, values: Tensor) -> Tensor:
        return rank_last(values.abs() if self._settings.rank_by == "magnitude" else values, _unmoved(values))


def _unmoved(values: Tensor) -> Tensor:
    """Mask of the gates that no gradient has moved since they were set: the adapter did not run."""
    return (values == 0) | (values == 1)


def _on_simplex(values: Tensor, support: Tensor) -> Tensor:
    """The projection onto the simplex of the entries in `support`; all others become 0.

    Gates that have not moved become 0, too, unless there are no others.
    """
    moved = support & ~_unmoved(values)
    support = moved if bool(moved.any()) else support
    return torch.zeros_like(values).masked_scatter(support, project_simplex(values[support]))
