"""A probe before training: the gradients of adapters that no step has moved yet.

While `B = 0`, an adapter changes nothing, A has no gradient, and `dL/dB = s G A^T` with the gradient G of the module's
weight. The score is the L1 norm of the mean gradient over the batches, on average over several draws of A. To first
order, that is the decrease of the loss by a first step of Adam, which moves every entry by the learning rate. It is
divided by the mean of the block, because gradients grow towards the output, however useful a block is.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.optim import Optimizer

from ..adapters import LoraAdapter
from ..gradients import Average, l1_norms, projected
from ..layers import relative_to_blocks
from .base import Best, Rule, Settings


class GradientProbe(Rule):
    """The L1 norm of the mean gradient of each adapter's factors, over draws of A and relative to its block.

    Attributes:
        rows: Rows that all draws of an A have together at most: 8 draws at rank 8. With 1, only its own A counts.
    """

    name = "gradient"
    score_label = "gradient, relative to the block"
    probes = True
    compares_blocks = False
    rows = 64

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings) -> None:
        super().__init__(adapters, optimizer, settings)
        self._norms = self.score

    @contextmanager
    def watching(self, average: Average) -> Iterator[None]:
        with projected(self._adapters, self.rows) as sums:
            yield
        self._norms = l1_norms(self._adapters, sums, average)

    def take(self, grad_scale: float) -> Tensor:
        """L1 norms of the gradients of the probe, shape `(n,)`; 0 before it."""
        return self._norms / grad_scale

    def update(self, evidence: Tensor, step: int, best: Best) -> None:
        """Score the adapters by the norms of the mean gradient."""
        self.score = relative_to_blocks(evidence, [adapter.name for adapter in self._adapters])
