"""Where a model is cut: its list of blocks, the lowest one that trains, and what everything below depends on."""

import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, takewhile
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..adapters import base_model_of, unwrap_model
from ..errors import ModelError
from ..tensors import shards
from .store import bits_of

FORMAT = 2
OURS = ("accelerate", "peft", "transformers", "weightlora")
"""Packages whose hooks may be on blocks that do not run."""

LEAVE_OUT = "leave the prefix cache out."


@dataclass(frozen=True)
class Cut:
    """A model's blocks, and the part below the lowest one that trains.

    Attributes:
        backbone: The module that takes `input_ids` and runs the blocks.
        blocks: Its list of blocks.
        first: Place of the lowest block with a trainable parameter; the last block if none has one.
        holders: The backbone and the modules between it and the list.
        before: Children of the holders that are registered before the list, such as the embeddings.
    """

    backbone: nn.Module
    blocks: nn.ModuleList
    first: int
    holders: tuple[nn.Module, ...]
    before: tuple[nn.Module, ...]

    @property
    def prefix(self) -> list[nn.Module]:
        """Every module that hidden states at the cut may depend on, so also what runs above, but is in no block."""
        return list(self.below(self.first))

    def below(self, first: int) -> Iterator[nn.Module]:
        """As `prefix`, for a cut at block `first`."""
        yield from _outside(self.backbone, self.blocks)
        for block in list(self.blocks)[:first]:
            yield from block.modules()


def find_cut(model: nn.Module) -> Cut:
    """Find the blocks of a model, and the lowest one that trains.

    Args:
        model: A model of Transformers that takes `input_ids`, with or without PEFT and DDP around it.

    Raises:
        ModelError: What is below cannot be cached: the blocks are not one list, something below trains, or the
            weights are not whole in this process. The message names it.
    """
    _check_wrappers(model)
    base = base_model_of(model)
    if getattr(getattr(base, "config", None), "is_encoder_decoder", False):
        raise ModelError(f"{type(base).__name__} is an encoder-decoder, whose blocks are two lists: {LEAVE_OUT}")
    lists = dict(_outermost_lists(base))
    if len(lists) != 1:
        names = ", ".join(lists) or "none"
        raise ModelError(f"{type(base).__name__} has {len(lists)} lists of blocks ({names}), not one: {LEAVE_OUT}")
    [(path, blocks)] = lists.items()
    parts = path.split(".")
    above = [base.get_submodule(".".join(parts[:end])) for end in range(len(parts))]
    for one in (model, getattr(model, "module", None), unwrap_model(model), *above):
        if hasattr(one, "_orig_mod") or getattr(one, "_compiled_call_impl", None) is not None:
            raise ModelError(f"torch.compile fixes which blocks run: train without it, or {LEAVE_OUT}")
    taking = [place for place, module in enumerate(above) if _takes_ids(module)]
    if not taking:
        raise ModelError(f"no module of {type(base).__name__} takes input_ids and runs {path}: {LEAVE_OUT}")
    holders = tuple(above[taking[-1] :])
    before = [child for pair in pairwise((*holders, blocks)) for child in _registered_before(*pair)]
    trained = [place for place, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())]
    cut = Cut(holders[0], blocks, min(trained, default=len(blocks) - 1), holders, tuple(before))
    _check_frozen(base, cut)
    return cut


def check_dropout(cut: Cut, prefix_dropout: str) -> None:
    """Check that the prefix computes the same for the same example.

    Raises:
        ModelError: It has dropout or batch normalization, and `prefix_dropout` is not `"off"`, or dropout that cannot
            be switched off alone.
    """
    for module in cut.holders:
        for name, value in _dropouts(module):
            raise ModelError(f"{type(module).__name__} has {name}={value:g} around its blocks: set it to 0.")
    if prefix_dropout == "off":
        return
    for part in (*cut.before, *list(cut.blocks)[: max(1, cut.first)]):
        leaving = _of_trained_adapters(part)
        for path, module in part.named_modules():
            if isinstance(module, _BatchNorm):
                raise ModelError(
                    f"{type(part).__name__}.{path} normalizes by the batch, and below the lowest adapter an example "
                    "must give the same in each: accept by prefix_dropout='off' that it uses its stored statistics, "
                    f"or {LEAVE_OUT}"
                )
            for name, value in [] if module in leaving else _dropouts(module):
                where = f"{type(part).__name__}.{path}" if path else type(part).__name__
                raise ModelError(
                    f"{where} has {name}={value:g}, and blocks below the lowest adapter must compute the same each "
                    "time: set it to 0, or accept by prefix_dropout='off' that they train without dropout."
                )


def identity_of(cut: Cut, first: int | None = None) -> dict[str, Any]:
    """What the hidden states at the cut depend on: the frozen weights below it, the config, the dtype and the place.

    Args:
        cut: From `find_cut`.
        first: Take this place instead of the cut's own.
    """
    first = cut.first if first is None else first
    tensors = [tensor for module in cut.below(first) for tensor in _frozen(module)]
    weights = hashlib.sha256()
    for tensor in tensors:
        weights.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(bits_of(tensor.detach().cpu().contiguous()))
    return {
        "format": FORMAT,
        "model": type(cut.backbone).__name__,
        "first": first,
        "dtype": str(next((t.dtype for t in tensors if t.is_floating_point()), None)),
        "config": hashlib.sha256(json.dumps(_settings(cut.backbone), default=str).encode()).hexdigest(),
        "weights": weights.hexdigest(),
    }


def adapters_in(cut: Cut) -> str | None:
    """Which adapters are switched on in the prefix now, and how they are scaled; None if something in it trains.

    Empty without PEFT's layers there, which is usual after the choice.
    """
    parts = (*cut.before, *list(cut.blocks)[: cut.first])
    if any(parameter.requires_grad for part in parts for parameter in part.parameters()):
        return None
    layers: list[Any] = [one for one in cut.prefix if isinstance(one, (BaseTunerLayer, ModulesToSaveWrapper))]
    return " ".join(map(_switched_on, layers))


def _switched_on(layer: Any) -> str:
    """The active adapters of a layer of PEFT with their scaling, and the ones that a call has named for its rows."""
    if layer.disable_adapters:
        return "-"
    scaling = getattr(layer, "scaling", {})
    hooks = [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, partial)]
    of_rows = [hook.keywords.get("adapter_names", "") for hook in hooks]
    return ",".join([*(f"{name}*{scaling.get(name)}" for name in layer.active_adapters), *map(str, of_rows)])


def watched(cut: Cut) -> str | None:
    """A module of the blocks below with a hook of the user's own, which would not see examples that are read."""
    for place, block in enumerate(list(cut.blocks)[: cut.first]):
        for path, module in block.named_modules():
            hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
            origins = [getattr(getattr(hook, "func", hook), "__module__", None) or "" for hook in hooks]
            if any(origin.partition(".")[0] not in OURS for origin in origins):
                return ".".join(filter(None, (f"block {place}", path)))
    return None


def trains(name: str) -> str:
    """The message about a parameter below the cut that trains."""
    return f"{name} trains, and the blocks compute with it, so what they give changes: freeze it, or {LEAVE_OUT}"


def _settings(backbone: nn.Module) -> list[tuple[str, Any]]:
    """The entries of its config that this kind of model alone has. The Trainer changes some that all models have."""
    from transformers import PretrainedConfig

    config: Any = getattr(backbone, "config", None)
    of_all = PretrainedConfig().to_dict().keys() | {"use_cache"}
    return [] if config is None else sorted((k, v) for k, v in config.to_dict().items() if k not in of_all)


def _frozen(module: nn.Module) -> Iterator[Tensor]:
    """Its own frozen tensors, without names, which would differ while PEFT's layers are around them.

    Buffers that are not saved follow from the config, and some change while the model runs.
    """
    yield from (parameter for parameter in module.parameters(recurse=False) if not parameter.requires_grad)
    derived = module._non_persistent_buffers_set
    yield from (buffer for name, buffer in module.named_buffers(recurse=False) if name not in derived)


def _outside(module: nn.Module, blocks: nn.ModuleList) -> Iterator[nn.Module]:
    """A module and all in it but the blocks."""
    yield module
    for child in module.children():
        if child is not blocks:
            yield from _outside(child, blocks)


def _registered_before(module: nn.Module, child: nn.Module) -> list[nn.Module]:
    return list(takewhile(lambda one: one is not child, module.children()))


def _outermost_lists(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """Every list of at least two modules that is in no other one. A list of lists counts as those in it."""
    found: list[str] = []
    for name, module in model.named_modules():
        is_list = isinstance(module, nn.ModuleList) and len(module) > 1 and not isinstance(module[0], nn.ModuleList)
        if is_list and not any(name.startswith(one) for one in found):
            found.append(f"{name}.")
            yield name, module


def _takes_ids(module: nn.Module) -> bool:
    return "input_ids" in inspect.signature(module.forward).parameters


def _of_trained_adapters(part: nn.Module) -> set[nn.Module]:
    """Modules of adapters that train, so that they are not below the cut once the choice is made."""
    found: set[nn.Module] = set()
    for layer in part.modules():
        if isinstance(layer, BaseTunerLayer) and any(p.requires_grad for p in layer.parameters()):
            found |= {*layer.modules()} - {*layer.get_base_layer().modules()}
    return found


def _dropouts(module: nn.Module) -> Iterator[tuple[str, float]]:
    """Names and rates of the dropout that a module applies itself."""
    if isinstance(module, _DropoutNd):
        yield from [("p", module.p)] if module.p else []
        return
    for name, value in vars(module).items():
        if "drop" in name.lower() and isinstance(value, float) and value > 0:
            yield name, value


def _check_wrappers(model: nn.Module) -> None:
    if isinstance(model, nn.DataParallel):
        raise ModelError(f"DataParallel copies the model for each step: train with DDP, or {LEAVE_OUT}")
    inner = unwrap_model(model)
    if isinstance(inner, PeftModel) and getattr(inner.active_peft_config, "is_prompt_learning", False):
        kind = inner.active_peft_config.peft_type
        raise ModelError(f"{getattr(kind, 'value', kind)} trains what goes into the first block: {LEAVE_OUT}")


def _check_frozen(base: nn.Module, cut: Cut) -> None:
    """Raise a `ModelError` if something registered before the blocks trains, or something is elsewhere.

    What is registered after the list may run before it. The first batch shows that.
    """
    below = {id(p) for part in cut.before for p in part.parameters()}
    below |= {id(p) for holder in cut.holders for p in holder.parameters(recurse=False)}
    names = {id(parameter): name for name, parameter in base.named_parameters()}
    for parameter in cut.backbone.parameters():
        name = names.get(id(parameter), "a parameter")
        if parameter.is_meta or hasattr(parameter, "ds_id") or shards(parameter) > 1:
            raise ModelError(f"{name} is not whole in this process (FSDP, ZeRO stage 3, offloading): {LEAVE_OUT}")
        if parameter.requires_grad and id(parameter) in below:
            raise ModelError(trains(name))
