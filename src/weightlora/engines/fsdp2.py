"""FSDP2 (`fully_shard`): dead parameters leave its lists of shards."""

from collections.abc import Iterator
from typing import Any

from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ..adapters import unwrap_model
from ..errors import ModelError
from ..tensors import whole
from .base import Engine, cannot_rewire

DERIVED = {"_fsdp_params_with_wider_grad_dtype"}
"""Parts of a group's list of shards, which torch 2.15 makes once. It makes an order of places once, too."""


class Fsdp2(Engine):
    """Serves a model whose parameters are DTensors. FSDP2 has no public way to remove one: its lists are edited."""

    can_grow = False

    @classmethod
    def holds(cls, model: nn.Module) -> bool:
        return any(True for _ in _shard_groups(model))

    def attach(self, model: nn.Module) -> None:
        for name, module in unwrap_model(model).named_modules():
            if isinstance(module, LoraLayer) and hasattr(module, "_get_fsdp_state"):
                raise ModelError(
                    f"fully_shard was called on {name!r}, which leaves the model with its adapter, and its base "
                    "weights would stay sharded: call fully_shard on the blocks instead, and on the whole model."
                )
        _reshard_(model)

    def settle(self, model: nn.Module, names: list[str]) -> None:
        _reshard_(model)
        super().settle(model, names)

    def rewire_(self, model: nn.Module) -> None:
        super().rewire_(model)
        try:
            alive = {id(parameter) for parameter in unwrap_model(model).parameters()}
            for group in _shard_groups(model):
                for name in ("fsdp_params", *DERIVED & vars(group).keys()):
                    shards = getattr(group, name)
                    setattr(group, name, [shard for shard in shards if id(shard.sharded_param) in alive])
                # before the first forward pass it is empty, and cannot be made
                if getattr(group, "_reduce_scatter_param_indices", None):
                    group._init_reduce_scatter_param_order()
        except (AttributeError, TypeError) as error:
            raise cannot_rewire(error) from error


def is_sharded(model: nn.Module) -> bool:
    """Whether parameters of the model are DTensors."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def whole_weights(model: nn.Module, adapter_name: str) -> dict[str, Tensor] | None:
    """What PEFT saves of an adapter, by its name in the model's state, on the CPU; None where nothing is in parts.

    All processes ask for it together.
    """
    if not is_sharded(model):
        return None
    inner: Any = unwrap_model(model)
    state = inner.state_dict()
    saved = {id(value) for value in get_peft_model_state_dict(inner, state, adapter_name).values()}
    return {name: whole(value).cpu() for name, value in state.items() if id(value) in saved}


def _reshard_(model: nn.Module) -> None:
    """Let modules hold the parameters that the optimizer has, also after a forward pass without a backward pass."""
    for module in _sharded(model):
        module.reshard()


def _sharded(model: nn.Module) -> Iterator[Any]:
    """The modules on which `fully_shard` was called."""
    return (module for module in unwrap_model(model).modules() if hasattr(module, "_get_fsdp_state"))


def _shard_groups(model: nn.Module) -> Iterator[Any]:
    """FSDP2's groups of sharded parameters."""
    for module in _sharded(model):
        state: Any = module._get_fsdp_state()
        # Newer torch has several groups a module; older ones have one, or none.
        groups = getattr(state, "_fsdp_param_groups", None)
        yield from [state._fsdp_param_group] if groups is None else groups
