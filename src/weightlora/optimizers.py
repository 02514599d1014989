"""Edits of a live optimizer, in place: its groups stay the same dictionaries, in number and order."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import Optimizer


def unwrap_optimizer(optimizer: Optimizer) -> Optimizer:
    """The torch optimizer inside Accelerate's wrapper, which only forwards."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return optimizer


def check_holds(optimizer: Optimizer, named: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Raise a `ValueError` unless the optimizer holds every one of the named parameters."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, parameter in named if id(parameter) not in held]
    if missing:
        raise ValueError(
            f"the optimizer does not hold {len(missing)} adapters' trainable parameters, {missing[0]!r} the first: "
            "build it from the parameters of this model, after get_peft_model()."
        )


def drop_parameters_(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take parameters out of their groups and out of the optimizer's state, and drop their gradients."""
    dropped = {id(parameter): parameter for parameter in parameters}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in dropped]
    for parameter in dropped.values():
        optimizer.state.pop(parameter, None)
        parameter.grad = None


def replace_parameter_(
    optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, carry: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Put a parameter into another's place in its group.

    Args:
        optimizer: Holds `old`, or not (then nothing happens).
        old: Leaves the optimizer with its state.
        new: Takes its position.
        carry: Maps a moment of the shape of `old` to one of the shape of `new`. State that is neither a float tensor
            of that shape nor a scalar (factored or quantized moments) cannot be carried, and `new` starts afresh;
            so it does without `carry`.
    """
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if not state or carry is None:
        return
    moments = {key for key, value in state.items() if _is_moment(value, old)}
    if all(key in moments or _is_scalar(value) for key, value in state.items()):
        optimizer.state[new] = {key: carry(value) if key in moments else value for key, value in state.items()}


def _is_moment(value: object, parameter: nn.Parameter) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == parameter.shape


def _is_scalar(value: object) -> bool:
    # by dimensions: at rank 1 a factored moment may have one entry, too
    return not isinstance(value, Tensor) or value.dim() == 0
