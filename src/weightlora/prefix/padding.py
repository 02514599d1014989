"""Whether a loss depends on hidden states at padded places, which are not kept."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import TrainingError
from .rows import Rows


class Padding:
    """Watches the gradient at padded places in batches that run through the whole model.

    No batch with padding is read before one was watched.

    Args:
        stop: Called with the reason, if the loss depends on padding.
    """

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop = stop
        self._watched = False
        self._was_read = False

    def permits(self, rows: Rows) -> bool:
        """Whether a batch may be read: it has no padding, or one with padding was watched."""
        return self._watched or not rows.padding().any()

    def count(self, rows: Rows) -> None:
        """Note that a batch was read."""
        self._was_read |= bool(rows.padding().any())

    def watch(self, hidden: Tensor, rows: Rows) -> Tensor:
        """Hidden states of shape `(examples, tokens, width)`, whose gradient is watched from now on."""
        padding = rows.padding()
        if hidden.dim() != 3 or hidden.shape[:2] != padding.shape or not torch.is_grad_enabled() or not padding.any():
            return hidden
        hidden = hidden if hidden.requires_grad else hidden.detach().requires_grad_()
        hidden.register_hook(lambda grad: self._check(grad, padding))
        self._watched = True
        return hidden

    def _check(self, grad: Tensor, padding: Tensor) -> None:
        """Stop if the gradient is not zero there.

        Raises:
            TrainingError: If batches with padding were read before.
        """
        there = grad[padding.to(grad.device)]
        if not (there[there.isfinite()] != 0).any():
            return
        why = (
            "the loss depends on hidden states of padding, which are not kept: mask padding in the labels (-100) and "
            "in pooling"
        )
        if self._was_read:
            raise TrainingError(f"{why}, and train again: batches with padding were read, so their losses were wrong.")
        self._stop(why)
