"""Edits of a live optimizer, in place: its groups stay the same dictionaries, in number and order."""

from collections.abc import Callable, Iterable
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Adagrad, Optimizer

from .errors import ConfigError, ModelError
from .wording import counted

MOMENTS = {
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta"),
    *("sum", "state1", "state2"),  # of Adagrad, and of bitsandbytes
}
"""State that is 0 where a parameter is new. Not so a copy of the weights (schedule-free), or step sizes (Rprop)."""


def unwrap_optimizer(optimizer: Optimizer) -> Optimizer:
    """The torch optimizer inside Accelerate's wrapper, which only forwards."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return optimizer


def with_hooks(optimizer: Any) -> Optimizer:
    """The torch optimizer inside a wrapper. Raises a `ConfigError` if there is none: nothing would tell its steps."""
    inner = unwrap_optimizer(optimizer)
    if not hasattr(inner, "register_step_pre_hook"):
        raise ConfigError(
            f"the optimizer is a {type(inner).__name__}, which calls no hooks of torch when it steps: give WeightLora "
            "the torch optimizer that it wraps."
        )
    return inner


def check_optimizer(optimizer: Any, watched: bool) -> None:
    """Raise a `ConfigError` unless this is an optimizer, or a wrapper around one, that parameters can leave.

    Args:
        optimizer: What the user gave.
        watched: Whether adapters are chosen by how its steps lower the loss.
    """
    if not isinstance(getattr(optimizer, "param_groups", None), list):
        raise ConfigError(
            f"the second argument is a {type(optimizer).__name__}, and must be the optimizer that trains the "
            "adapters: write WeightLora(model, optimizer, config)."
        )
    if isinstance(unwrap_optimizer(optimizer), LBFGS):
        raise ConfigError(
            "LBFGS keeps all parameters in one vector, which none can leave: train with AdamW, or choose with "
            "weightlora.select() before the training."
        )
    if hasattr(unwrap_optimizer(optimizer), "consolidate_state_dict"):
        raise ConfigError(
            "ZeroRedundancyOptimizer keeps its own lists of parameters, which none can leave: train with DeepSpeed "
            "(ZeRO) or FSDP2, or choose before the optimizer is built."
        )
    if watched and any(group.get("maximize") for group in optimizer.param_groups):
        raise ConfigError(
            "maximize=True of the optimizer raises the loss, and adapters are chosen by how they lower it: minimize "
            "the negative of what you maximize, or set selection='gradient'."
        )


def check_holds(optimizer: Optimizer, named: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Raise a `ModelError` unless the optimizer holds every one of the named parameters."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    lacks = {name: parameter for name, parameter in named if id(parameter) not in held}
    if missing := [*lacks]:
        if any(parameter._post_accumulate_grad_hooks for parameter in lacks.values()):
            raise ModelError(
                f"the parameters of {missing[0]!r} have hooks that step them in the backward pass, and the optimizer "
                "does not hold them, so they cannot leave it: train with one optimizer that steps after the backward "
                "pass (in Transformers, an optim without 'layerwise'), or choose with weightlora.select() before."
            )
        raise ModelError(
            f"the optimizer does not hold the parameters of {counted(len(missing), 'adapter')}, {missing[0]!r} "
            "the first: build it after get_peft_model() from all parameters of this model that train, those of "
            "DoRA and of embeddings (lora_magnitude_vector, lora_embedding_A) among them."
        )


def drop_parameters_(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take parameters out of their groups and out of the optimizer's state, and drop their gradients.

    Lists that a group keeps beside its parameters, an entry each (names, scaling factors), are shortened with them.
    """
    dropped = {id(parameter): parameter for parameter in parameters}
    for group in optimizer.param_groups:
        stays = [id(parameter) not in dropped for parameter in group["params"]]
        for key, values in group.items():
            if _is_parallel(optimizer, key, values, stays):
                left = list(compress(values, stays))
                _forget_names_(optimizer, [value for value, kept in zip(values, stays, strict=True) if not kept], left)
                group[key] = left
        group["params"] = list(compress(group["params"], stays))
    for parameter in dropped.values():
        optimizer.state.pop(parameter, None)
        parameter.grad = None


def _is_parallel(optimizer: Optimizer, key: str, values: Any, stays: list[bool]) -> bool:
    """Whether a value of a group has an entry for each of its parameters. A list with a default is one setting."""
    is_setting = key in getattr(optimizer, "defaults", {})  # which wrappers may lack
    return key != "params" and not is_setting and isinstance(values, list) and len(values) == len(stays)


def _forget_names_(optimizer: Optimizer, gone: list[Any], left: list[Any]) -> None:
    """Drop state that is kept by name, or by what names of several parameters begin with (as PEFT's LoRA-FA does)."""
    gone, left = ([name for name in names if isinstance(name, str)] for names in (gone, left))
    state: dict[Any, Any] = optimizer.state
    for key in [key for key in state if isinstance(key, str)]:
        if any(name.startswith(key) for name in gone) and not any(name.startswith(key) for name in left):
            del state[key]


def replace_parameter_(
    optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, carry: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Put a parameter into another's place in its group.

    Args:
        optimizer: Holds `old`, or not (then nothing happens).
        old: Leaves the optimizer with its state.
        new: Takes its position.
        carry: Maps a moment of the shape of `old` to one of the shape of `new`. State that is neither one of the
            `MOMENTS`, of that shape, nor a scalar (factored or quantized moments, copies of weights) cannot be
            carried, and `new` starts afresh; so it does without `carry`.
    """
    for group in optimizer.param_groups:
        stays = [parameter is not old for parameter in group["params"]]
        for key, values in group.items():  # state by name is of the old shape
            if _is_parallel(optimizer, key, values, stays):
                _forget_names_(optimizer, [value for value, kept in zip(values, stays, strict=True) if not kept], [])
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if not state:
        return
    moments = {key for key, value in state.items() if key in MOMENTS and _is_moment(value, old)}
    if carry is not None and all(key in moments or _is_scalar(value) for key, value in state.items()):
        optimizer.state[new] = {key: carry(value) if key in moments else value for key, value in state.items()}
    elif isinstance(optimizer, Adagrad):  # which, in older PyTorch, makes state when it is built, and never again
        first = torch.full_like(new, optimizer.defaults["initial_accumulator_value"])
        optimizer.state[new] = {"step": torch.zeros_like(state["step"]), "sum": first}


def _is_moment(value: object, parameter: nn.Parameter) -> bool:
    # by type: torchao's quantized moments have the shape and dtype of plain ones
    return type(value) is Tensor and value.is_floating_point() and value.shape == parameter.shape


def _is_scalar(value: object) -> bool:
    # by dimensions: at rank 1 a factored moment may have one entry, too
    return not isinstance(value, Tensor) or value.dim() == 0
