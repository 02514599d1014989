"""The profile `merged`: the adapter in the weights of the base, as an ordinary Transformers model."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from torch import nn

from ..errors import ModelError
from ..tensors import dtype_name
from .base import BASE, Base
from .beside import save_beside
from .checks import Outputs, attach, compare_outputs, outputs, probe_batch
from .features import keeps
from .source import Source


def write_merged(
    source: Source, base: Base, directory: Path, dtype: torch.dtype | None, compare: bool
) -> tuple[torch.dtype, Outputs | None]:
    """Merge the adapter into its base, save the model with its tokenizer and processor, and load it again to compare.

    The merge is computed in float32. The saved weights are always compared with the merged ones.

    Args:
        source: The adapter.
        base: Its base.
        directory: Exists, and is empty.
        dtype: Of the saved weights; None takes the one of the base's own config.
        compare: Whether to compare the outputs on a probe batch, too.

    Returns:
        The dtype, and how close the outputs are.

    Raises:
        ModelError: If the base cannot be loaded, PEFT cannot merge the adapter, or the saved model differs.
    """
    other = keeps("portable", source)
    instead = "choose profile 'portable'" if other else "no other profile keeps it, so load it with PEFT"
    loaded = base.load(written=True)
    _refuse_shared(loaded, [pair.path for pair in source.pairs])
    model = attach(loaded, source.directory, [pair.name for pair in source.pairs])
    places = get_peft_model_state_dict(model).keys() | model.state_dict().keys()
    if lost := (source.others.keys() | source.tables.keys()) - places:
        raise ModelError(
            f"PEFT has no place for the tensor {min(lost)!r} of the adapter, and a merged model would lack it: "
            "install the PEFT that wrote it, or remove what trains it."
        )
    probed = None
    if compare:
        batch = probe_batch(model.get_base_model())
        before = outputs(model, batch)
        with model.disable_adapter():
            probed = batch, before, outputs(model, batch)
    try:
        merged: nn.Module = model.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise ModelError(f"PEFT cannot merge this adapter into its base ({reason}): {instead}.") from error
    kind = dtype or getattr(base.config(), "dtype", None) or torch.float32
    finite = {name for name, tensor in merged.state_dict().items() if tensor.isfinite().all()}
    _cast_(merged, base, kind)
    if lost := [
        name for name, tensor in merged.state_dict().items() if name in finite and not tensor.isfinite().all()
    ]:
        raise ModelError(
            f"{lost[0]!r} has values that {dtype_name(kind)} cannot hold, so nothing was written: "
            "add --dtype float32 or bfloat16 (in Python dtype=...)."
        )
    merged.save_pretrained(directory)  # type: ignore[operator]
    save_beside(source.directory, base.name, base.revision, directory)
    wanted = merged.state_dict()
    again = type(merged).from_pretrained(directory, dtype=kind).eval()  # type: ignore[attr-defined]
    found = again.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        if name not in wanted or name not in found or not torch.equal(found[name], wanted[name]):
            raise ModelError(f"the merged model was saved with another {name!r}, so nothing was written: {instead}.")
    del merged, wanted, found
    if probed is None:
        return kind, None
    batch, before, without = probed
    return kind, compare_outputs(before, outputs(again.float(), batch), kind, without)


def _cast_(model: Any, base: Base, dtype: torch.dtype) -> None:
    """Cast the weights as Transformers casts those of the base, some of which, such as router biases, stay float32."""
    config, kind = copy.deepcopy(model.config), type(model)
    settings = {"dtype": dtype, "ignore_mismatched_sizes": True, "device_map": "meta", "use_kernels": False}
    like = kind.from_pretrained(base.name, revision=base.revision, config=config, **settings).state_dict()
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(like[name].dtype)


def _refuse_shared(model: nn.Module, paths: Iterable[str]) -> None:
    """Raise a `ModelError` if an adapted weight is another module's, too: PEFT would merge the adapter into both."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for path in paths:
        for found in owners.values():
            if path in found and (others := [name for name in found if name != path]):
                raise ModelError(
                    f"{path!r} and {others[0]!r} share a weight, and merging the adapter of one would change both: "
                    f"choose profile 'portable', or give a base in which they are untied with {BASE}."
                )
