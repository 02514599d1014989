"""The paper's rule: a trainable gate omega on each adapter, moved by StoIHT (arXiv 2506.02724, Algorithm 1).

Gates live beside the model: they are no parameter and no buffer, and nothing of them is in a state dict.

A gate multiplies the rank-r activation `A x` where PEFT's layer calls `lora_A` as a module, and the weight B (of size
`r x out`) where it does not (embeddings, expert parameters); with `lora_bias` also the bias. So the model computes
`W x + omega s B A x` at the cost of r multiplications a token, without a tensor of the output's size for backward.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Embedding, ParamWrapper
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..adapters import LoraAdapter
from ..adapters.variants import refuse_gates
from ..budget import project_simplex, thresholds
from ..errors import TrainingError
from ..tensors import to_vector
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
        super().__init__(adapters, optimizer, settings)
        refuse_gates(adapters)
        self.gates = [attach_gate(adapter) for adapter in adapters]
        self.score = self.omega.clone()
        self._optimizer, self._settings = optimizer, settings
        self._adapters = adapters

    def take(self, grad_scale: float) -> Tensor:
        """The gates' gradients, without the loss scale."""
        gradients = take_gradients(self.gates)
        if gradients is None:
            raise TrainingError(
                "no gate got a gradient: call step() after backward() on this model's loss, with the gated adapter "
                "active (fused LoRA kernels bypass gates; switch them off)."
            )
        return gradients / grad_scale

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """One gradient step of the gates; every `threshold_every` steps after the warm-up, the projection, too."""
        settings = self._settings
        eta = settings.omega_lr
        if settings.omega_follows_lr:
            eta *= self._part_of_lr()
        moved = self.score - eta * evidence
        if not bool(moved.float().isfinite().all()):  # which the gates are on the model
            raise TrainingError(f"a gate would become infinite under omega_lr={settings.omega_lr}: lower it.")
        # While B = 0 every gradient is 0, and there is nothing to rank.
        if thresholds(step, settings.warmup_steps, settings.threshold_every) and bool(evidence.any()):
            moved = self._project(moved, best)
        self.score = moved
        if step > settings.warmup_steps:
            self.omega = self.score.clone()
            set_gates_(self.gates, self.omega)

    def _part_of_lr(self) -> float:
        """The learning rate of the adapters, as a part of the rate that their schedule begins or peaks at.

        Schedulers that raise the rate above the one that they were given say nowhere where it ends, so 1 is the most.
        OneCycleLR begins far below its peak, and says where that is.
        """
        trained = {id(parameter) for adapter in self._adapters for parameter in adapter.parameters}
        groups = self._optimizer.param_groups
        group = next((one for one in groups if any(id(p) in trained for p in one["params"])), groups[0])
        if "initial_lr" not in group:  # no scheduler
            return 1.0
        return min(1.0, float(group["lr"]) / float(group.get("max_lr", group["initial_lr"])))

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
        for gate, kept in zip(self.gates, mask.tolist(), strict=True):
            if not kept:
                detach_gate(gate)
        self.gates = [gate for gate, kept in zip(self.gates, mask.tolist(), strict=True) if kept]
        self._adapters = [adapter for adapter, kept in zip(self._adapters, mask.tolist(), strict=True) if kept]
        super().keep(mask)

    def restore(self, score: Tensor, omega: Tensor) -> None:
        super().restore(score, omega)
        set_gates_(self.gates, omega)

    def close(self) -> None:
        for gate in self.gates:
            detach_gate(gate)

    def _ranked(self, values: Tensor) -> Tensor:
        ranked = values.abs() if self._settings.rank_by == "magnitude" else values
        return rank_last(ranked, _unmoved(values))

    def _project(self, values: Tensor, best: Best) -> Tensor:
        if self._settings.constraint == "simplex":
            return _on_simplex(values, torch.ones_like(values, dtype=torch.bool))
        return torch.where(best(self._ranked(values)), values, 0.0)


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


@dataclass(frozen=True, eq=False)
class Gate:
    """A gate on one adapter: `omega`, a float32 leaf of shape `()`, and the hooks that apply it."""

    omega: Tensor
    handles: tuple[RemovableHandle, ...]


def attach_gate(adapter: LoraAdapter) -> Gate:
    """Hook a gate of value 1 into the adapter's forward pass; `detach_gate` takes it out again."""
    layer, name = adapter.layer, adapter.adapter_name
    omega = torch.ones((), dtype=torch.float32, device=adapter.factors[1].device, requires_grad=True)
    if isinstance(layer, (Embedding, ParamWrapper)):
        holder, key = (
            (layer.lora_embedding_B, name) if isinstance(layer, Embedding) else (layer.lora_B[name], "weight")
        )
        before = layer.register_forward_pre_hook(partial(_gate_weight, omega, holder, key))
        after = layer.register_forward_hook(partial(_restore_weight, holder, key), always_call=True)
        return Gate(omega, (before, after))
    handles = [layer.lora_A[name].register_forward_hook(partial(_gate_activation, omega))]
    if adapter.bias is not None:
        handles.append(layer.lora_B[name].register_forward_hook(partial(_gate_bias, omega)))
    return Gate(omega, tuple(handles))


def detach_gate(gate: Gate) -> None:
    """Remove the gate's hooks: nothing of it is reachable from the model any more."""
    for handle in gate.handles:
        handle.remove()


def take_gradients(gates: list[Gate]) -> Tensor | None:
    """The gates' gradients as a float64 CPU tensor of shape `(n,)`, cleared where they came from.

    A gate that took no part in the forward pass has gradient 0; None means that none of them took part.
    """
    gradients = [gate.omega.grad for gate in gates]
    for gate in gates:
        gate.omega.grad = None
    if all(gradient is None for gradient in gradients):
        return None
    return to_vector(
        [torch.zeros_like(gate.omega) if g is None else g for gate, g in zip(gates, gradients, strict=True)]
    )


@torch.no_grad()
def set_gates_(gates: list[Gate], values: Tensor) -> None:
    """Write the values of shape `(n,)` into the gates."""
    places: defaultdict[torch.device, list[int]] = defaultdict(list)
    for place, gate in enumerate(gates):
        places[gate.omega.device].append(place)
    for device, here in places.items():  # one transfer and one operation a device
        new = values[here].float().to(device, non_blocking=True)
        torch._foreach_copy_([gates[place].omega for place in here], list(new.unbind()))


def _gate_activation(omega: Tensor, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * omega.to(output.device)


def _gate_bias(omega: Tensor, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    # output is B A x omega + b; adding (omega - 1) b, a vector, keeps no tensor of the output's size for backward
    shape = (-1, *[1] * (output.dim() - 2)) if isinstance(module, nn.modules.conv._ConvNd) else (-1,)
    return output + ((omega.to(output.device) - 1) * module.get_parameter("bias")).to(output.dtype).view(shape)


def _gate_weight(omega: Tensor, holder: nn.Module, key: str, module: nn.Module, args: Any) -> None:
    # While the layer's forward runs, an attribute of the same name stands before the registered parameter.
    weight = holder.get_parameter(key)
    holder.__dict__[key] = weight * omega.to(weight.device)


def _restore_weight(holder: nn.Module, key: str, module: nn.Module, args: Any, output: Any) -> None:
    holder.__dict__.pop(key, None)
