"""DistributedDataParallel: its reducer is built anew for the parameters that are left."""

import gc
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..adapters import unwrap_model
from ..errors import TrainingError
from .base import Engine, cannot_rewire
from .processes import has_group


class Ddp(Engine):
    """Serves a model, whether DDP wraps it or not, and also before there is a process group.

    DDP has no public way to change its parameters. The reducer is built by what DDP calls itself when it is unpickled,
    so no bucket of a dead parameter is left. It gets everything that DDP or its user told the old one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._model: nn.Module | None = None
        self._wrappers: list[DistributedDataParallel] | None = None

    @classmethod
    def holds(cls, model: nn.Module) -> bool:
        return dist.is_available()

    def attach(self, model: nn.Module) -> None:
        self._model = model

    def average(self, evidence: Tensor) -> Tensor:
        """Mean of the evidence over all processes.

        Raises:
            TrainingError: If a process has run out of batches inside DDP's `join()`.
        """
        if self._wrappers is None and self._model is not None:  # not earlier: DDP may wrap the model after attach()
            self._wrappers = _wrappers_of(self._model)
        for ddp in self._wrappers or []:
            _check_all_present(ddp)
        return super().average(evidence)

    def compare(self, model: nn.Module) -> None:
        # Inside join(), a process that has run out of batches takes no part, and DDP gives it the weights at the end.
        if self._comparisons and not self._wrappers:  # DDP may wrap the model after the choice, too
            self._wrappers = _wrappers_of(model)
        if not any(ddp._join_config.enable for ddp in self._wrappers or []):
            super().compare(model)

    def rewire_(self, model: nn.Module) -> None:
        super().rewire_(model)
        self._wrappers = _wrappers_of(model)
        for ddp in self._wrappers:
            if ddp.static_graph and not ddp._join_config.enable:
                _rebuild_when_synchronised_(ddp)
            else:
                _rebuild_reducer_(ddp)


def _check_all_present(ddp: DistributedDataParallel) -> None:
    """Raise a `TrainingError` if a process has left the loop while the others select.

    It then repeats what DDP communicates, and would take the evidence for that. The first number that it expects of a
    step is whether others go on, and this asks for the same one.
    """
    if not ddp._join_config.enable:
        return
    present = torch.ones(1, device=ddp.join_device)
    dist.all_reduce(present, group=ddp.join_process_group)
    world = dist.get_world_size(ddp.join_process_group)
    if present.item() < world:
        raise TrainingError(
            f"{world - int(present.item())} of {world} processes ran out of batches in the selection phase, and every "
            "process gives evidence in each of its steps: give all the same number of batches (drop_last=True), or "
            "select for fewer steps."
        )


def _rebuild_when_synchronised_(ddp: DistributedDataParallel) -> None:
    """Rebuild the reducer before the next forward pass whose gradients are reduced.

    With a static graph, torch records the first backward pass that a reducer sees, and fails if it is not reduced.
    """
    ddp.reducer._remove_autograd_hooks()

    def rebuild(*_: object) -> None:
        if ddp.require_backward_grad_sync and torch.is_grad_enabled():
            handle.remove()
            _rebuild_reducer_(ddp)

    handle = ddp.register_forward_pre_hook(rebuild)


def _rebuild_reducer_(ddp: DistributedDataParallel) -> None:
    try:
        builtin = _builtin_hook_of(ddp)
        ddp.reducer._remove_autograd_hooks()
        parameters, sparse = ddp._build_params_for_reducer()
        names = ddp._build_debug_param_to_name_mapping(parameters)
        ddp._ddp_init_helper(parameters, sparse, names, ddp.static_graph)
        if ddp.static_graph:
            ddp.reducer._set_static_graph()
            ddp.logger._set_static_graph()  # type: ignore[union-attr]
            # Otherwise the new reducer waits for ever for the end of its first iteration, and reduces nothing.
            ddp._static_graph_delay_allreduce_enqueued = False
        for hook, state in ddp._comm_hooks:
            _forget_buckets_(state)
            dist._register_comm_hook(ddp.reducer, state, hook)
        if builtin is not None:
            ddp._register_builtin_comm_hook(builtin)
        if ddp.mixed_precision is not None:
            ddp.reducer._set_mixed_precision_param_dtype(ddp.mixed_precision.param_dtype)  # type: ignore[attr-defined]
        ddp._module_parameters = [parameter for _, parameter in ddp.module.named_parameters()]
        ddp._has_rebuilt_buckets = False
    except (AttributeError, TypeError) as error:
        raise cannot_rewire(error) from error


def _builtin_hook_of(ddp: DistributedDataParallel) -> object | None:
    """The communication hook in C++, which DDP keeps in its reducer alone."""
    if ddp._comm_hooks or ddp.logger is None:
        return None
    name = ddp.logger._get_ddp_logging_data().strs_map.get("comm_hook", "")
    return getattr(dist.BuiltinCommHookType, name.rpartition(".")[2], None)


def _forget_buckets_(state: object) -> None:
    """Drop what PowerSGD remembers of each bucket, and compress again once the new buckets have their final order."""
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState

    if isinstance(state, PowerSGDState):
        for memory in (state.error_dict, state.p_memory_dict, state.q_memory_dict):
            memory.clear()
        state.iter = min(state.iter, state.start_powerSGD_iter - 2)  # they are reordered after the first step


def _wrappers_of(model: nn.Module) -> list[DistributedDataParallel]:
    """DDP around the model, or around a module that holds it (Lightning's).

    A Trainer gives its callbacks the model without the wrapper, and nothing leads from a module to what wraps it but
    the garbage collector, which does not know what `gc.freeze()` has frozen.
    """
    if not has_group():
        return []
    inner = unwrap_model(model)
    things: list[Any] = [*model.modules(), *gc.get_objects()]
    # not isinstance, which asks proxies for their class
    found = {id(thing): thing for thing in things if issubclass(type(thing), DistributedDataParallel)}
    return [ddp for ddp in found.values() if any(module is inner for module in ddp.modules())]
