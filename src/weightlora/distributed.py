"""What must happen across processes: average the evidence, agree on the decision, rebuild DDP's reducer."""

import gc
import hashlib

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .adapters import unwrap_model

SHARDED = {
    "FullyShardedDataParallel": "FSDP",
    "FSDPModule": "FSDP2",
    "DeepSpeedEngine": "DeepSpeed",
}


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def refuse_sharded(model: nn.Module) -> None:
    """Raise a `ValueError` if the model's parameters are spread over processes, which this version cannot edit."""
    for module in model.modules():
        for kind in type(module).__mro__:
            if kind.__name__ in SHARDED:
                raise ValueError(
                    f"this model is sharded by {SHARDED[kind.__name__]}, and weightlora selects on one process or "
                    "under DDP: choose the adapters there, and train the chosen ones sharded."
                )


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


def rebuild_reducers_(model: nn.Module) -> None:
    """Make DDP forget the parameters that left the model, and learn of those that came: no bucket holds a dead one.

    DDP has no public way to do this. What is called here is what it calls itself when it is unpickled.

    Raises:
        RuntimeError: If this torch has another DDP inside.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    for ddp in _wrappers_of(model):
        try:
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
        except (AttributeError, TypeError) as error:
            raise RuntimeError(
                f"the DDP of torch {torch.__version__} cannot be told that adapters left the model ({error}): choose "
                "on one process, and train the chosen adapters on many."
            ) from error


def _wrappers_of(model: nn.Module) -> list[DistributedDataParallel]:
    """DDP around the model. Training loops hand out the model inside, and nothing leads from there to the wrapper."""
    inner = unwrap_model(model)
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), DistributedDataParallel))
    return [ddp for ddp in found if unwrap_model(ddp) is inner]


def _device() -> torch.device:
    """Where the process group communicates from."""
    backend = dist.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
