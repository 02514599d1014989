"""What torch does inside a block: which operations, how often, and which tensors go from one device to another."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operations(TorchDispatchMode):
    """Inside, `made` counts operations by name, and `waited_for` lists the copies for which the host waits.

    With fake tensors it works without the device.
    """

    def __init__(self):
        super().__init__()
        self.made: Counter[str] = Counter()
        self.waited_for: list[tuple[str, str]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        self.made[name] += 1
        # scalars of a CPU go along with any other operation than a copy
        origin, end = (devices_of(some, scalars="copy" in name) for some in (args, result))
        if len(origin | end) > 1 and not kwargs.get("non_blocking"):
            self.waited_for.append((*origin, *end))
        return result


def devices_of(tree, scalars: bool) -> set[str]:
    tensors = [leaf for leaf in tree_leaves(tree) if torch.is_tensor(leaf)]
    return {tensor.device.type for tensor in tensors if tensor.dim() or scalars}
