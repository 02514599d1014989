"""The study of draws: how much of what the probe chooses depends on the random A of the fresh adapters.

While `B = 0`, `dL/dB = s G A^T` with the gradient G of the module's weight. If G has a low rank, the score of a module
depends on how large A happens to be in its row space. Here probes with other draws of A are compared. They add up the
norms of the batches, where the package's probe takes the norm of the summed gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from weightlora.adapters import LoraAdapter, find_adapters
from weightlora.budget import top_by_parameters
from weightlora.compare.statistics import jaccard
from weightlora.config import DEFAULT_KEEP
from weightlora.errors import ConfigError
from weightlora.rules.gradient import relative_to_blocks
from weightlora.tensors import to_vector
from weightlora.train.fitting import load_prepared

from ..methods import ALL_METHODS
from ..workloads import job_for

__all__ = ["Draws", "study_draws"]


@dataclass(frozen=True)
class Draws:
    """The sets that probes of several seeds choose.

    Attributes:
        shared: Whether A is the same at all seeds, so that only the batches differ.
        draws: How often A is drawn in each batch; with 0, it is drawn once for all batches.
        chosen: Names of the chosen modules, at each seed.
    """

    shared: bool
    draws: int
    chosen: list[list[str]]

    @property
    def overlap(self) -> float | None:
        """The mean Jaccard overlap of the sets of two seeds."""
        return jaccard(self.chosen)


def study_draws(
    experiment: Mapping[str, Any], seeds: list[int], draws: list[int], batches: int, directory: str
) -> list[Draws]:
    """Probe a task at several seeds, which order the training set and draw A.

    Args:
        experiment: Resolved settings of LoRA on all modules.
        seeds: Two at least.
        draws: Numbers of draws in each batch, in rising order.
        batches: Number of batches of each probe.
        directory: Nothing is written there.

    Raises:
        ConfigError: There is only one seed.
    """
    if len(seeds) < 2:
        raise ConfigError(f"seeds={seeds} is one seed, and an overlap needs two sets: give at least two seeds.")
    found: dict[tuple[bool, int], list[list[str]]] = {}
    for seed in seeds:
        job = job_for(experiment, seed, ALL_METHODS, directory)
        model = load_prepared(job).model.train()
        adapters = find_adapters(model)
        order = torch.randperm(len(job.work.train), generator=torch.Generator().manual_seed(seed)).tolist()
        size = experiment["batch_size"]
        rows = [[job.work.train[i] for i in order[at : at + size]] for at in range(0, size * batches, size)]

        def norms(batch: list[Any], model: Any = model, adapters: Any = adapters, job: Any = job) -> Tensor:
            model.zero_grad(set_to_none=True)
            model(**job.work.collate(batch)).loss.backward()
            return to_vector([adapter.factors[1].grad.abs().sum() for adapter in adapters])

        for shared in (True, False):
            set_seed(0 if shared else seed)
            _draw_(adapters)
            found.setdefault((shared, 0), []).append(_choose(adapters, sum(map(norms, rows), torch.zeros(()))))
        total, done = torch.zeros(len(adapters), dtype=torch.float64), 0
        for number in draws:
            for _ in range(number - done):
                for batch in rows:
                    _draw_(adapters)
                    total += norms(batch)
            done = number
            found.setdefault((False, number), []).append(_choose(adapters, total))
    return [Draws(shared, number, chosen) for (shared, number), chosen in found.items()]


def _draw_(adapters: list[LoraAdapter]) -> None:
    """Draw A anew, and set B to 0, as PEFT does for a fresh adapter."""
    for adapter in adapters:
        adapter.layer.reset_lora_parameters(adapter.adapter_name, True)


def _choose(adapters: list[LoraAdapter], evidence: Tensor) -> list[str]:
    """The names that the default keeps by the L1 norms of the gradients of B."""
    names, sizes = [adapter.name for adapter in adapters], [adapter.size for adapter in adapters]
    score = relative_to_blocks(evidence, names)
    kept = top_by_parameters(score, sizes, int(DEFAULT_KEEP * sum(sizes)))
    return [name for name, stays in zip(names, kept.tolist(), strict=True) if stays]
