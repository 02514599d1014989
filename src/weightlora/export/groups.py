"""Groups of layers that servers fuse into one: complete those of which only a part is adapted, with zeros."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError
from .pairs import Pair

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""What SGLang, vLLM and TensorRT-LLM run as one layer."""


def incomplete(names: Iterable[str]) -> dict[str, list[str]]:
    """Name -> names of the same group that are missing, for the first adapted module of each incomplete group."""
    given = list(names)
    there, found = set(given), {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for name in given:
        parent, _, last = name.rpartition(".")
        group = next((group for group in GROUPS if last in group), None)
        if group is None or (parent, group) in seen:
            continue
        seen.add((parent, group))
        siblings = [f"{parent}.{one}" if parent else one for one in group]
        if missing := [one for one in siblings if one not in there]:
            found[name] = missing
    return found


def complete(pairs: Sequence[Pair], model: nn.Module) -> list[Pair]:
    """The pairs, and after each of an incomplete group, pairs of zeros for the modules that are missing.

    Args:
        pairs: What is adapted.
        model: The base model, which knows the widths; weights are not read.

    Raises:
        ModelError: If a module of a group is no linear layer. A module that the model does not have is left out.
    """
    modules = dict(model.named_modules())
    missing = incomplete(pair.name for pair in pairs)
    result = []
    for pair in pairs:
        result.append(pair)
        for name in missing.get(pair.name, ()):
            if name in modules:
                result.append(_zeros(name, modules[name], pair))
    return result


def _zeros(name: str, module: nn.Module, like: Pair) -> Pair:
    if isinstance(module, nn.Linear):
        width_in, width_out = module.in_features, module.out_features
    elif isinstance(module, Conv1D):
        width_in, width_out = module.nx, module.nf
    else:
        raise ModelError(
            f"{name} is a {type(module).__name__}, so zeros cannot complete its group: leave out "
            "--complete_fused (in Python complete_fused=True)."
        )
    a = torch.zeros(like.rank, width_in, dtype=like.a.dtype)
    b = torch.zeros(width_out, like.rank, dtype=like.b.dtype)
    return Pair(name, name, "linear", a, b, like.rank, 1.0)
