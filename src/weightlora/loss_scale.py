"""Whether the gradients of gates carry a loss scale that the caller did not name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .adapters import LoraAdapter
from .errors import TrainingError
from .guard import after_closure
from .tensors import gradient_of, local, to_vector

SCALED = 4096.0
"""Gates whose gradients are so many times too large carry a loss scale: nobody clips those of adapters by so much."""


class ScaleCheck:
    """Compares the gradients of gates with those of B, from which a GradScaler takes the scale before each step.

    What an adapter adds is linear in its gate and in B. So, before clipping, a gate times its gradient is
    `<B, dL/dB>`.

    Args:
        optimizer: A torch optimizer.
        adapters: The n adapters.

    Attributes:
        handle: Removes the check from the optimizer.
    """

    def __init__(self, optimizer: Optimizer, adapters: Sequence[LoraAdapter]) -> None:
        self._factors = [adapter.factors[1] for adapter in adapters]
        self._products: Tensor | None = None  # of the latest step
        self.handle = optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        self._products = None
        return after_closure(args, kwargs, lambda: self._remember(getattr(optimizer, "grad_scale", None)))

    @torch.no_grad()
    def _remember(self, scale: Any) -> None:
        """Compute the products. A fused optimizer is given the scale, and takes it out in its step."""
        there = [(b, found) for b in self._factors if (found := gradient_of(b)) is not None]
        if there:
            products = to_vector([torch.sum(local(b).float() * local(found).float()) for b, found in there])
            self._products = products / (1.0 if scale is None else float(scale))

    def unscaled(self, gradients: Tensor, omega: Tensor, scale: float) -> Tensor:
        """The gates' gradients without the loss scale, compared with the latest step.

        The check ends with the first step in which B is not 0, or whose scale the caller names.

        Args:
            gradients: Shape `(n,)`.
            omega: The gates that acted, shape `(n,)`.
            scale: The loss scale that the caller named, else 1.

        Raises:
            TrainingError: If they carry a scale that the caller did not name.
        """
        products = self._products
        if products is not None and not bool(products.any()):
            products = None
        if scale != 1 or products is not None:
            self.handle.remove()
            self._factors, self._products = [], None
        if scale == 1 and products is not None:
            ratio = float((omega * gradients).abs().sum() / products.abs().sum())
            if ratio > SCALED:
                raise TrainingError(
                    f"the gradients of the gates are {ratio:,.0f} times as large as those of the adapters: with a "
                    "GradScaler, call step(grad_scale=scaler.get_scale()) before scaler.update()."
                )
        return gradients / scale
