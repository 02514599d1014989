"""What the first batch shows: whether a model's prefix gives the same again, and the blocks above need no more."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ModelError, TrainingError
from ..restoring import GENERATORS, same_buffers, same_fields, same_modes, same_random_numbers
from ..tensors import leaves_of, tensors_in
from .cut import LEAVE_OUT, Cut, trains
from .places import entering, passed_over
from .rows import Rows

FEW, REPEATS = 4, 8
LEAST = 3e-4
"""Of a token's size: what the order of sums explains in float32, also where a GPU rounds its factors (TF32)."""


class Trial(NamedTuple):
    """What a trial has shown.

    Attributes:
        entered: What block `cut.first` got.
        in_eval: Whether the blocks below compute the same in evaluation mode. BigBird looks at other tokens there.
    """

    entered: Tensor
    in_eval: bool


def distance(one: Tensor, other: Tensor) -> float:
    """The root mean square, over tokens, of the distance of their hidden states, relative to their size in `one`."""
    one, other = one.float(), other.float()
    relative = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-12)
    return float(relative.square().mean().sqrt())


def rounding(*precisions: torch.dtype | None) -> float:
    """The largest `distance` that rounding explains."""
    return max(LEAST, *(FEW * torch.finfo(precision).eps for precision in precisions if precision is not None))


def check_kept(states: Tensor, kept: Tensor, rows: Rows, first: int, directory: Path) -> None:
    """Check that hidden states which were read are those that were computed.

    Raises:
        TrainingError: They differ by more than rounding.
    """
    real = ~rows.padding()
    far, allowed = distance(states[real], kept[real]), rounding(states.dtype, rows.precision)
    if not far <= allowed:
        raise TrainingError(
            f"the hidden states at block {first} differ from those in {directory} by {far:.2g} of their size "
            f"(rounding explains {allowed:.2g}): something below that block has changed since, so delete the "
            "directory, and leave everything below the lowest adapter as it is."
        )


def try_model(run: Callable[[], Any], run_mixed: Callable[[], Any], cut: Cut, rows: Rows, off: bool) -> Trial | None:
    """Check by passes over the first batch, without gradients, that the model can be cached.

    They come before the pass that trains, so that what this one leaves on modules and in hooks is its own.

    Args:
        run: A forward pass over the batch.
        run_mixed: One over its tokens in another order. What the blocks below leave on a module is then of no use to
            those above.
        cut: Of the model.
        rows: The batch.
        off: Whether dropout below the cut is off.

    Returns:
        What it has shown; None if block `cut.first` does not get the hidden states of each token once.

    Raises:
        ModelError: Something below gives another result in another pass, or hands on more than hidden states.
    """
    device = next(p.device for module in (cut.blocks[cut.first], cut.backbone) for p in module.parameters())
    padding = rows.padding().to(device)
    real = ~padding
    met: list[Tensor] = []

    def watch(hidden: Tensor) -> Tensor:
        met.append(hidden.clone())  # blocks may change it
        numbers.append(_random_states(cut.backbone, device))
        torch.manual_seed(0)  # the dropout of the blocks above is the same in all passes
        return hidden

    def swap(_: Tensor) -> Tensor:
        torch.manual_seed(0)
        return entered.masked_fill(padding[..., None], 0)

    with _without_traces(cut.backbone, device):
        numbers = [_random_states(cut.backbone, device)]
        with entering(cut.blocks, cut.first, watch) as form:
            output = run()
            if not (len(met) == len(form) == 1 and met[0].dim() == 3 and met[0].shape[:2] == padding.shape):
                return None
            entered, kind = met[0], form[0]
            allowed = rounding(entered.dtype, rows.precision)
            drawn = numbers[0] != numbers[1]  # some do not use it, and for some it seldom makes a difference
            for seed in range(1, REPEATS if drawn else 2):  # without it, a state may make one
                torch.manual_seed(seed)
                run()
                _check_repeat(distance(entered[real], met[-1][real]), LEAST, cut, off)
            with same_modes(cut.backbone):
                cut.backbone.eval()
                run()
            same_in_eval = distance(entered[real], met[-1][real]) <= allowed
            run_mixed()
        try:
            with passed_over(cut.blocks, cut.first, kind, swap):
                far = _apart(output, run(), real)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any kind: the model looks for what blocks that did not run hand on
            raise ModelError(_more(cut, f"{type(error).__name__}: {error}")) from error
    if not far <= allowed:
        raise ModelError(_more(cut, f"it differs by {far:.2g} of its size"))
    return Trial(entered, same_in_eval)


def check_pass(trial: Trial, entered: Tensor, states: Tensor, cut: Cut, rows: Rows, off: bool) -> None:
    """Check that block `cut.first` got in the pass that trains what it got in the trial.

    Args:
        trial: Of the same batch.
        entered: What it got, with its graph.
        states: A copy on the CPU: the block may have changed it.
        cut: Of the model.
        rows: The batch.
        off: Whether dropout below the cut is off.

    Raises:
        ModelError: Something below trains, or computes something else.
    """
    _check_graph(entered, cut.backbone)
    real = ~rows.padding()
    allowed = rounding(entered.dtype, rows.precision)
    _check_repeat(distance(states[real], trial.entered.cpu()[real]), allowed, cut, off)


def _check_graph(entered: Tensor, backbone: nn.Module) -> None:
    """Raise a `ModelError` if hidden states come from a parameter that trains."""
    names = {id(parameter): name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    for leaf in leaves_of(entered):
        if (name := names.get(id(leaf))) is not None:
            raise ModelError(trains(f"{name} of {type(backbone).__name__}"))


def _check_repeat(far: float, allowed: float, cut: Cut, off: bool) -> None:
    if not far <= allowed:
        accept = "" if off else "accept by prefix_dropout='off' that they train without it, "
        raise ModelError(
            f"the hidden states at block {cut.first} differ by {far:.2g} of their size between two passes over the "
            "same batch. Either the blocks below draw random numbers, for dropout or the noise of a router, or they "
            f"keep a state: set it to 0, {accept}or {LEAVE_OUT}"
        )


def _random_states(backbone: nn.Module, device: torch.device) -> list[Any]:
    """Of all generators from which a forward pass may draw, as values that can be compared."""
    states: list[Any] = [torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)]
    if device.type != "cpu":
        states.append(getattr(torch, device.type).get_rng_state(device))
    values = (value for module in backbone.modules() for value in vars(module).values())
    states += [_state_of(value) for value in values if isinstance(value, GENERATORS)]
    return [*map(_comparable, states)]


def _state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        with contextlib.suppress(NotImplementedError):
            return generator.getstate()
        return object()  # numbers of the system are never the same
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def _comparable(state: Any) -> Any:
    """With lists in the place of tensors and arrays."""
    if isinstance(state, dict):
        return {name: _comparable(value) for name, value in state.items()}
    if isinstance(state, tuple):
        return [*map(_comparable, state)]
    return state.tolist() if hasattr(state, "tolist") else state


def _more(cut: Cut, what: str) -> str:
    return (
        f"the output of {type(cut.backbone).__name__} is not the same without the blocks below block {cut.first} "
        f"({what}), so those above need more than the hidden states of tokens: {LEAVE_OUT}"
    )


def _apart(one: Any, other: Any, real: Tensor) -> float:
    """The largest `distance` of two outputs at real tokens; infinite if they have other shapes."""
    ones, others = [*tensors_in(one)], [*tensors_in(other)]
    if [tensor.shape for tensor in ones] != [tensor.shape for tensor in others]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(ones, others, strict=True) if a.shape[:2] == real.shape and a.is_floating_point()]
    return max((distance(a[real.to(a.device)], b[real.to(b.device)]) for a, b in pairs), default=0.0)


@contextlib.contextmanager
def _without_traces(backbone: nn.Module, device: torch.device) -> Iterator[None]:
    """For forward passes that leave no trace on modules: no gradients, and random numbers go on as if none had run.

    Autocast keeps no copies of weights meanwhile: those made without gradients would serve the training, too.
    """
    kind = device.type
    autocast = torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    devices = [] if kind == "cpu" else [*range(getattr(torch, kind).device_count())]  # all of them get the seeds
    with (
        torch.no_grad(),
        autocast,
        same_fields(backbone.modules()),
        same_buffers(backbone),
        same_random_numbers(backbone),
        torch.random.fork_rng(devices, device_type=kind),
    ):
        yield
