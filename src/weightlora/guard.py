"""A look at the gradients before each optimizer step: a step that would put NaN into the weights is not made.

The first one that trains anything of the model is to train its adapters.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import TrainingError
from .tensors import gradient_of, local, to_vector

START_AGAIN = "start again"
SEVERAL = (
    "the optimizer has made several steps since the last step() of the selection (or since its start), and each of "
    "them counts in the choice: call it after each optimizer.step()."
)


class StepGuard:
    """Notes whether an optimizer has stepped, and refuses steps along gradients that are NaN or infinite.

    It stays on the optimizer for the whole training, and reads one number from the accelerator per step. A step that
    an AMP scaler skips never gets here, or has `found_inf`, which tells fused optimizers to do nothing.

    Args:
        optimizer: A torch optimizer.
        named: Gives the names and parameters of the model, for the message.
        average: Mean of a CPU tensor over the processes, so that all refuse the same step.

    Attributes:
        handle: Removes the guard from the optimizer.
        go_back: What to do after such a step, where the caller knows a checkpoint.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named: Callable[[], Iterator[tuple[str, nn.Parameter]]],
        average: Callable[[Tensor], Tensor] = lambda found: found,
    ) -> None:
        self.go_back: Callable[[], str] = lambda: START_AGAIN
        self._optimizer, self._named, self._average = optimizer, named, average
        # Of the last two steps since `take`, what a fused optimizer was told; read there, or the host would wait.
        self._steps: tuple[Tensor | None, ...] = ()
        self._reached = False
        self._scale: float | None = None  # of the last step, if it was not made although its gradients are finite
        self.handle = optimizer.register_step_pre_hook(self._before_step)

    def take(self) -> bool:
        """Whether the optimizer has stepped since the last call.

        Raises:
            TrainingError: If it has stepped more than once: the evidence is that of the last step alone.
        """
        made, self._steps = [told is None or not bool(told) for told in self._steps], ()
        if sum(made) > 1:
            raise TrainingError(SEVERAL)
        return made[-1:] == [True]

    def check_steps(self, stepped: bool, scale: float | None) -> None:
        """Raise a `TrainingError` unless the optimizer has stepped, or an AMP scaler skipped the step.

        A skipped step may have finite gradients by now, because users clip them by value. But a scaler lowers its
        scale after each step that it skips: if the next one has the same scale, it skipped nothing.

        Args:
            stepped: Whether the optimizer has stepped since the last call.
            scale: That of the step; None if there is no scaler.
        """
        last, self._scale = self._scale, None
        if scale is not None and not stepped and not self.is_spoiled():
            self._scale = scale
        missing = not stepped if scale is None else last is not None and scale >= last
        if missing:
            raise TrainingError(
                "the optimizer has not stepped before each step() of the selection: call it after optimizer.step(), "
                "with Accelerate only where accelerator.sync_gradients is true, and if there is a GradScaler, with "
                "grad_scale=scaler.get_scale() from before scaler.update()."
            )

    def check_seen(self) -> None:
        """Raise a `TrainingError` if the optimizer goes on although nobody has called `take` after a step."""
        if self._steps == (None, None):
            raise TrainingError(SEVERAL)

    def is_spoiled(self) -> bool:
        """Whether a gradient is NaN or infinite, in any process."""
        return bool(self._average(torch.tensor([float(self._is_spoiled_here())], device="cpu")))

    def _is_spoiled_here(self) -> bool:
        return not are_finite(gradient_of(p) for group in self._optimizer.param_groups for p in group["params"])

    def _whose(self) -> str:
        """Which gradient is NaN or infinite. The optimizer may train more than one model."""
        names = [name for name, parameter in self._named() if not are_finite([gradient_of(parameter)])]
        if names:
            return f"the gradient of {names[0]!r}"
        return f"a gradient of {'a parameter outside of this model' if self._is_spoiled_here() else 'another process'}"

    def leave_others(self) -> None:
        """From now on look at the gradients of this process alone, which then need not step whenever others do."""
        self._average = lambda found: found

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        found = getattr(optimizer, "found_inf", None)
        if found is not None:
            self._steps = (*self._steps, found)[-2:]
            self._warn_of_unreached(stacklevel=5)
            return None
        return after_closure(args, kwargs, partial(self._check, self._steps))  # a closure may be called several times

    def _check(self, before: tuple[Tensor | None, ...]) -> None:
        """Note that the optimizer steps, after the steps of before.

        Raises:
            TrainingError: If it must not.
        """
        if self.is_spoiled():
            raise TrainingError(
                f"{self._whose()} is NaN or infinite: training has diverged, and this step is not made. Lower the "
                f"learning rate, and {self.go_back()}."
            )
        self._steps = (*before, None)[-2:]
        self._warn_of_unreached(stacklevel=6)

    def _warn_of_unreached(self, stacklevel: int) -> None:
        """At the first step that trains anything of the model, warn if it trains no adapter."""
        if self._reached:
            return
        trained: dict[bool, list[bool]] = {True: [], False: []}  # adapters, and all else
        for name, parameter in self._named():
            if parameter.requires_grad and local(parameter).numel():  # FSDP1 leaves nothing of some in this process
                trained[".lora_" in name].append(gradient_of(parameter) is not None)
        adapters, others = trained[True], trained[False]
        self._reached = any(adapters) or any(others)
        if any(others) and adapters and not any(adapters):
            warnings.warn(
                f"none of the {len(adapters)} parameters of adapters got a gradient at the first optimizer step, "
                "and others did, so adapters are not trained: set use_reentrant=False if you use gradient "
                "checkpointing.",
                stacklevel=stacklevel,
            )


def refuse_unasked(selector: Any, *_: Any) -> None:
    """The step pre-hook of an optimizer: raise if the selector, which has not chosen, knows nothing of its steps."""
    refuse_unprobed(selector)
    selector.guard.check_seen()


def refuse_unprobed(selector: Any) -> None:
    """Raise if the selector needs a probe and had none: all adapters would train, or the first ones would be kept."""
    if selector.needs_probe:
        if selector.limit is not None:
            selector.limit.check_measured()
        raise TrainingError(
            f"selection={selector.config.selection!r} chooses before the first step, and has seen no batch: call "
            "probe(batches) before the loop, or set selection='credit' to choose while training."
        )


def after_closure(args: Any, kwargs: Any, look: Callable[[], None]) -> Any:
    """Look at the gradients of a step: at once, or after its closure, which brings them (Lightning's loops have one).

    Args:
        args: Those of a step pre-hook of an optimizer, which is the first of them.
        kwargs: Those of the hook.
        look: Called once for each time that the gradients are there.

    Returns:
        What the hook returns.
    """
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        look()
        return None

    def looking() -> Any:
        loss = closure()
        look()
        return loss

    if len(args) > 1:
        return (args[0], looking, *args[2:]), kwargs
    return args, kwargs | {"closure": looking}


@torch.no_grad()
def are_finite(tensors: Iterable[Tensor | None]) -> bool:
    """Whether no entry is NaN or infinite, of those tensors that are there and of this process's parts of them."""
    parts = (tensor._values() if tensor.is_sparse else local(tensor) for tensor in tensors if tensor is not None)
    there = [part for part in parts if part.numel()]
    # A norm is not finite if an entry is not. The usual one is the quickest; the largest magnitude cannot overflow.
    norms = (torch._foreach_norm(there, order) for order in (2.0, math.inf))
    return not there or any(math.isfinite(to_vector(list(one)).sum()) for one in norms)
