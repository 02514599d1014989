"""What processes that train together must agree on: averaged evidence, one decision, and the weights after it."""

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..adapters import unwrap_model
from ..errors import ConfigError, ModelError, TrainingError
from ..tensors import local, numel, shards

LONGEST = 1000  # characters of another process's error; a store refuses some megabytes

_PARTS = itertools.count()
"""Numbers what the processes do one by one: the same in all of them."""

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def has_group() -> bool:
    """Whether there is a process group, be it of one process."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Processes that train together; 1 without a process group."""
    return dist.get_world_size() if has_group() else 1


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


@contextlib.contextmanager
def together(what: str) -> Iterator[None]:
    """Inside is what each process does alone. If one fails, the others fail too, and do not wait for it.

    They tell each other through the store of the group. An operation of the group would make the one that fails wait,
    and the others may be in the middle of another operation.

    Args:
        what: Names it, for the message.

    Raises:
        TrainingError: This process has done it, and another one has failed.
    """
    if world_size() == 1:
        yield
        return
    from torch.distributed.distributed_c10d import _get_default_store  # not all builds of torch have it

    store, part = _get_default_store(), f"weightlora/{next(_PARTS)}"
    try:
        yield
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"[:LONGEST].encode(errors="backslashreplace").decode()
        with contextlib.suppress(dist.DistError):  # the process that holds the store may have failed, too, and ended
            store.set(f"{part}/failed", f"process {dist.get_rank()} failed in {what} ({why})")
            store.set(f"{part}/over", "")
        raise
    try:
        if store.add(f"{part}/done", 1) == world_size():
            store.set(f"{part}/over", "")
        store.wait([f"{part}/over"])
        failed = store.get(f"{part}/failed").decode() if store.check([f"{part}/failed"]) else ""
    except dist.DistNetworkError:
        failed = f"the process that holds the store of the group has ended in {what}"
    if failed:
        raise TrainingError(f"{failed}, so all processes stop: look at its own error.")


def check_start(start: Any) -> None:
    """Check that all processes select with the same settings, seeds aside, among the same adapters.

    Otherwise they would decide at different steps, and one would wait for ever, or take what another one sends for
    something else.

    Args:
        start: The `State` that the selection begins with.

    Raises:
        ConfigError: On every process, unless they agree.
    """
    facts = {name: value for name, value in sorted(start.config.items()) if name != "seed"}
    facts |= {"step": (start.step_count, start.round)}
    facts |= {"the adapters of the model": (start.names, start.kinds, start.sizes, start.start_ranks)}
    everywhere = _gather([digest([repr(value)]) for value in facts.values()])
    places = [place for place, several in enumerate(zip(*everywhere, strict=True)) if len({*several}) > 1]
    if places:
        names = list(facts)
        found = [f"{names[place]}={facts[names[place]]!r}"[:80] for place in places if names[place] in start.config]
        found += [names[place] for place in places if names[place] not in start.config]
        raise ConfigError(
            f"the processes differ in {' and '.join(found)} (in process {dist.get_rank()}): give all the same "
            "settings, the same total_steps and the same model, and state where the run is resumed."
        )


def check_agreement(names: list[str], model: nn.Module) -> bool:
    """Check that all processes are about to keep the same adapters.

    Returns:
        Whether the trainable parameters are the same in all processes, too.

    Raises:
        ModelError: On every process, unless they agree.
    """
    if world_size() == 1:
        return True
    everywhere = _gather([digest(names), *digests_of(model)])
    if len({kept for kept, *_ in everywhere}) > 1:
        raise ModelError(
            "the processes disagree on which adapters to keep: build the same model with the same settings on each."
        )
    return _are_one_model([digests for _, *digests in everywhere])


def hold_one_model(model: nn.Module) -> bool:
    """Whether the trainable parameters, or those replicas of their shards that there are, agree over the processes."""
    return world_size() == 1 or _are_one_model(_gather(digests_of(model)))


def _are_one_model(everywhere: list[list[int]]) -> bool:
    structures = {structure for structure, _, _ in everywhere}
    parts = {part for _, part, _ in everywhere}
    return len(structures) == 1 and len({(part, bits) for _, part, bits in everywhere}) == len(parts)


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


def _gather(numbers: list[int]) -> list[list[int]]:
    """The numbers of every process."""
    own = torch.tensor(numbers, dtype=torch.int64, device=_device())
    everywhere = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(everywhere, own)
    return [one.tolist() for one in everywhere]


def _device() -> torch.device:
    """Where the process group communicates from."""
    backend = dist.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
