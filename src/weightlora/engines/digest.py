"""What processes that train one model can compare without sending it: digests of its trainable parameters."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..adapters import unwrap_model
from ..tensors import local, numel, shards

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest(names: Iterable[str]) -> int:
    """56 bits of SHA-256, which an int64 holds."""
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:7], "big")


@torch.no_grad()
def digests_of(model: nn.Module) -> list[int]:
    """Digests of the trainable parameters: of their names and whole sizes, of the part held here, and of its bits.

    The first is the same in all processes that train one model. The third is the same in those with the same second
    one: in all under DDP, in none where everything is cut into shards, and in the replicas of a shard.
    """
    structure, part, sums = [], [], []
    for name, parameter in unwrap_model(model).named_parameters():
        if parameter.requires_grad:
            structure.append(f"{name} {numel(parameter)}")
            part.append(_part_of(parameter))
            own = local(parameter.detach())
            sums.append(own.view(_BITS[own.element_size()]).sum(dtype=torch.int64))
    together = {one.device for one in sums}
    bits = torch.stack(sums).tolist() if len(together) == 1 else [int(one) for one in sums]
    return [digest(structure), digest(part), digest(map(str, bits))]


def _part_of(parameter: Any) -> str:
    """Which of its shards this process holds; the same for processes that hold replicas of one."""
    if shards(parameter) == 1:
        return ""
    if not hasattr(parameter, "placements"):  # FSDP1 cuts anywhere, and the cuts of two nodes are not compared
        return str(dist.get_rank())
    mesh = parameter.device_mesh
    places = zip(mesh.get_coordinate() or [], parameter.placements, strict=False)
    return str([place for place, placement in places if placement.is_shard()])
