"""What a model costs while it trains: parameters, optimizer state, activations kept for backward. Exact counts."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from .optimizers import unwrap_optimizer
from .restoring import same_buffers, same_modes, same_random_numbers
from .tensors import tensors_in


def trainable_parameters(model: nn.Module) -> int:
    """Number of entries of the parameters that require a gradient; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, frozen ones included; a storage that is shared counts once."""
    tensors = (*model.parameters(), *model.buffers())
    return sum({storage_of(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the tensors in the optimizer's state (Adam: both moments and its step counters).

    Wrappers that hold the real optimizer as `.optimizer`, as accelerate's does, are opened first. The state is made
    at the first `optimizer.step()`; before that the answer is 0.
    """
    states = unwrap_optimizer(optimizer).state.values()
    return sum(tensor.nbytes for state in states for tensor in tensors_in(state))


def saved_activation_bytes(model: nn.Module, batch: Mapping[str, Any]) -> int:
    """Bytes that autograd keeps for backward in one training forward `model(**batch)`.

    Every storage that the graph saves counts once and whole, however many views of it are saved. Storages of the
    model's own parameters and buffers do not count, frozen weights included: they are there anyway. Casted copies of
    weights (autocast) do count, because they exist only for this graph. Not counted is what a custom autograd function
    hides from `save_for_backward`.

    No backward runs. Gradients, random number generators, each module's training mode and the buffers' values
    (batch norm statistics) are as they were when this returns, also when the forward raises.

    Args:
        model: called as `model(**batch)` in training mode.
        batch: keyword arguments; tensors in it are moved to the device of the model's first parameter.

    Returns:
        Bytes, 0 when nothing in the model requires a gradient.
    """
    own = {storage_of(tensor) for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[tuple[torch.device, int], int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        key = storage_of(tensor)
        if key not in own:
            saved[key] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # a tensor with its grad_fn, saved by that very node, would hold the graph for ever

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = send_to_device(dict(batch), device)
    hooks = torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor)
    with same_modes(model), same_buffers(model), same_random_numbers(model), torch.enable_grad(), hooks:
        model.train()
        output = model(**inputs)
        total = sum(saved.values())
        del output  # the graph has to live until here: a freed storage's address would be used again
    return total


def peak_allocated_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Most bytes that torch's allocator had given out at any moment of `step()`, above those given out before it.

    Exact and repeatable, unlike the size of the process, which keeps what was freed. On a CPU what kernels take past
    the allocator is not seen, and neither is a tensor from before that the step frees: call it on a step that leaves
    all as it found it, such as a training step after the first.

    Args:
        step: Called once, without arguments.
        device: A CPU, or a CUDA device, whose peak statistics are reset.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler prints on stderr that it started
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            live += event.nbytes()  # negative where memory is given back
            peak = max(peak, live)
    return peak


def storage_of(tensor: torch.Tensor) -> tuple[torch.device, int]:
    """What tells the storage of a tensor from others, as long as it lives."""
    return tensor.device, tensor.untyped_storage().data_ptr()
