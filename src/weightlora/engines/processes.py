"""What processes that train together must agree on: averaged evidence, and one decision."""

import hashlib

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ModelError


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files."""
    return world_size() == 1 or dist.get_rank() == 0


def average(evidence: Tensor) -> Tensor:
    """Mean of a CPU tensor over the processes: each saw a part of the batch. A NaN in one process reaches all."""
    if world_size() == 1:
        return evidence
    shared = evidence.to(_device())
    dist.all_reduce(shared)
    return shared.to(evidence) / world_size()


def share(values: Tensor) -> Tensor:
    """The values of the first process, on all of them."""
    if world_size() == 1:
        return values
    shared = values.to(_device())
    dist.broadcast(shared, src=0)
    return shared.to(values)


def check_agreement(names: list[str]) -> None:
    """Raise a `ModelError`, on every process, unless all of them are about to keep the same adapters."""
    if world_size() == 1:
        return
    digest = int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:7], "big")
    own = torch.tensor([digest], dtype=torch.int64, device=_device())
    all_digests = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(all_digests, own)
    if len({int(one) for one in all_digests}) > 1:
        raise ModelError(
            "the processes disagree on which adapters to keep: build the same model with the same settings on each."
        )


def _device() -> torch.device:
    """Where the process group communicates from."""
    backend = dist.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
