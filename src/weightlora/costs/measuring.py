"""The costs of a training step, measured on your model with your batch. The model is as before afterwards."""

from collections.abc import Callable

from torch import Tensor, nn

from ..adapters import LoraAdapter
from ..errors import ModelError
from .memory import price_memory
from .model import Costs, Resource
from .seconds import price_seconds
from .tracing import trace

DEVICES = ("cpu", "cuda")
"""Others return before their work is done, and have other counters of memory."""


def measure(resource: Resource, model: nn.Module, adapters: list[LoraAdapter], loss: Callable[[], Tensor]) -> Costs:
    """Measure what steps with these adapters cost.

    A few steps are run with all adapters, and with one alone, such as the lowest or the highest. The depth of the
    others is read from two forward passes, and scaled to these.

    Args:
        resource: `"step_time"` or `"memory"`.
        model: Trains, and has no gradients.
        adapters: All that the model has.
        loss: Runs the model forward on one batch, and returns its loss.

    Raises:
        ModelError: The model is neither on a CPU nor on a CUDA device, an adapter is on a parameter and not on a
            module (experts), or `"memory"` is asked of a model whose layers are no chain (CLIP).
    """
    kind = next(model.parameters()).device.type
    if kind not in DEVICES:
        raise ModelError(
            f"the model is on a device of type {kind!r}, where steps cannot be measured: set keep or "
            "keep_parameters instead, or choose on a CPU or a CUDA device."
        )
    for adapter in adapters:
        if adapter.kind == "parameter":
            raise ModelError(
                f"adapter {adapter.name!r} is on a parameter (target_parameters), whose time and memory cannot be "
                "measured alone: set keep or keep_parameters instead."
            )
    try:
        loss().backward()
        used = [any(parameter.grad is not None for parameter in adapter.parameters) for adapter in adapters]
        model.zero_grad(set_to_none=True)
        seen = trace(model, adapters, loss, used)
        return {"memory": price_memory, "step_time": price_seconds}[resource](model, adapters, loss, seen)
    finally:
        model.zero_grad(set_to_none=True)
