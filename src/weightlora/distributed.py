"""What concerns several processes. So far: the refusal to select on more than one."""

import torch.distributed as dist


def refuse_many_processes() -> None:
    """Raise a `ValueError` if this process is one of several that train a model together."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ValueError(
            f"{dist.get_world_size()} processes train this model, and this version of weightlora selects on one: "
            "start the run with one process."
        )
