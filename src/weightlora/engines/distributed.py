"""What must happen across processes: average the evidence, agree on the decision, tell DDP and FSDP2 what has left."""

import gc
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..adapters import unwrap_model
from ..tensors import WHOLE

FLAT = "FullyShardedDataParallel"
_DEEPSPEED = ("DeepSpeed", "choose the adapters under DDP or FSDP, and train the chosen ones here")
FIXED = {
    FLAT: ("FSDP (version 1)", "use WeightLoraTrainer (or its mixin), which disconnects between two phases"),
    "DeepSpeedEngine": _DEEPSPEED,
    "DeepSpeedOptimizerWrapper": _DEEPSPEED,  # all of it that a Trainer shows to callbacks
}


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def refuse_fixed(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise a `ValueError` if the engine around the model laid its parameters out once and for all."""
    for thing in (*model.modules(), optimizer):
        for kind in type(thing).__mro__:
            if kind.__name__ in FIXED:
                engine, remedy = FIXED[kind.__name__]
                raise ValueError(f"this model is held by {engine}, from which parameters cannot leave: {remedy}.")


def note_whole_(model: nn.Module) -> None:
    """Note on every parameter that FSDP1 holds how large it is as a whole, and into how many parts it is cut.

    Raises:
        ValueError: If FSDP1 does not keep the parameters apart.
    """
    for unit in flat_units(model):
        handle = unit._handle
        if handle.flat_param._params is None:
            raise ValueError(
                "FSDP (version 1) has melted the adapters into one parameter: set use_orig_params=True for it."
            )
        parts = handle.world_size if handle.uses_sharded_strategy else 1
        for parameter, shape in zip(handle.flat_param._params, handle.flat_param._shapes, strict=True):
            setattr(parameter, WHOLE, (shape.numel(), parts))


def flat_units(model: nn.Module) -> list[Any]:
    """The modules that FSDP1 flattened the parameters of."""
    return [module for module in model.modules() if type(module).__name__ == FLAT and module._has_params]


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 holds the model's parameters."""
    return any(True for _ in _shard_groups(model))


def average(evidence: Tensor) -> Tensor:
    """Mean over the processes of a CPU tensor: each saw a part of the batch. Where one has a NaN, all have it."""
    if world_size() == 1:
        return evidence
    shared = evidence.to(_device())
    dist.all_reduce(shared)
    return shared.to(evidence) / world_size()


def same_everywhere(values: Tensor) -> Tensor:
    """The values of the first process, on all of them."""
    if world_size() == 1:
        return values
    shared = values.to(_device())
    dist.broadcast(shared, src=0)
    return shared.to(values)


def check_agreement(names: list[str]) -> None:
    """Raise a `ValueError`, on every process, unless all of them are about to keep the same adapters."""
    if world_size() == 1:
        return
    digest = int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:7], "big")
    own = torch.tensor([digest], dtype=torch.int64, device=_device())
    all_digests = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(all_digests, own)
    if len({int(one) for one in all_digests}) > 1:
        raise ValueError(
            "the processes disagree on which adapters to keep: build the same model with the same settings on each."
        )


def forget_(model: nn.Module) -> None:
    """Make DDP and FSDP2 forget the parameters that left the model, and DDP learn of those that came.

    Neither has a public way to do this. DDP's reducer is built anew, by what DDP calls itself when it is unpickled; of
    FSDP2, the lists of sharded parameters are shortened. No bucket and no shard of a dead parameter is left.

    Raises:
        RuntimeError: If this torch has another DDP or FSDP2 inside.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    try:
        for ddp in _wrappers_of(model):
            _rebuild_reducer_(ddp)
        alive = {id(parameter) for parameter in unwrap_model(model).parameters()}
        for group in _shard_groups(model):
            group.fsdp_params = [shard for shard in group.fsdp_params if id(shard.sharded_param) in alive]
    except (AttributeError, TypeError) as error:
        raise RuntimeError(
            f"torch {torch.__version__} cannot be told that adapters left the model ({error}): choose on one process, "
            "and train the chosen adapters on many."
        ) from error


def _rebuild_reducer_(ddp: DistributedDataParallel) -> None:
    ddp.reducer._remove_autograd_hooks()
    parameters, sparse = ddp._build_params_for_reducer()
    names = ddp._build_debug_param_to_name_mapping(parameters)
    ddp._ddp_init_helper(parameters, sparse, names, ddp.static_graph)
    if ddp.static_graph:
        ddp.reducer._set_static_graph()
    for hook, state in ddp._comm_hooks:
        dist._register_comm_hook(ddp.reducer, state, hook)
    ddp._module_parameters = [parameter for _, parameter in ddp.module.named_parameters()]
    ddp._has_rebuilt_buckets = False


def _shard_groups(model: nn.Module) -> Iterator[Any]:
    """FSDP2's groups of sharded parameters."""
    for module in unwrap_model(model).modules():
        if hasattr(module, "_get_fsdp_state"):
            state: Any = module._get_fsdp_state()  # type: ignore[operator]
            # Newer torch has several groups a module; older ones have one, or none.
            groups = getattr(state, "_fsdp_param_groups", None)
            yield from [state._fsdp_param_group] if groups is None else groups


def _wrappers_of(model: nn.Module) -> list[DistributedDataParallel]:
    """DDP around the model, or around a module that holds it (Lightning's): nothing leads from it to the wrapper."""
    inner = unwrap_model(model)
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), DistributedDataParallel))
    return [ddp for ddp in found if any(module is inner for module in ddp.modules())]


def _device() -> torch.device:
    """Where the process group communicates from."""
    backend = dist.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
