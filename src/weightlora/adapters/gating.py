"""A gate on one adapter: a factor omega, which hooks put into the forward pass.

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
from torch.utils.hooks import RemovableHandle

from ..tensors import to_vector
from .handles import LoraAdapter


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
    # As a vector, omega makes the product float32: its gradient is a sum over tokens, which float16 may not hold.
    return (output * omega.to(output.device)[None]).to(output.dtype)


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
