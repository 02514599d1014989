"""The study of draws: how much the probe's choice depends on the random A of the fresh adapters and on the batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, product
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import set_seed

from weightlora import WeightLoraConfig
from weightlora.adapters import LoraAdapter, find_adapters
from weightlora.budget import top_by_parameters
from weightlora.compare.statistics import jaccard
from weightlora.config import DEFAULT_KEEP
from weightlora.engines import Engine
from weightlora.errors import ConfigError
from weightlora.probe import gather
from weightlora.rules import GradientProbe, Settings
from weightlora.train.fitting import load_prepared

from ..methods import ALL_METHODS
from ..workloads import job_for


@dataclass(frozen=True)
class Draws:
    """The sets that probes of several seeds choose.

    Attributes:
        shared: Whether A is the same at all seeds, so that only the batches differ.
        rows: Rows of all draws of an A together; with 1, A is drawn once.
        batch_size: Examples in a batch.
        batches: Batches of a probe.
        chosen: Names of the chosen modules, at each seed.
    """

    shared: bool
    rows: int
    batch_size: int
    batches: int
    chosen: list[list[str]]

    @property
    def overlap(self) -> float | None:
        """The mean Jaccard overlap of the sets of two seeds."""
        return jaccard(self.chosen)


def study_draws(
    experiment: Mapping[str, Any],
    seeds: Sequence[int],
    rows: Sequence[int],
    batch_sizes: Sequence[int],
    batches: Sequence[int],
    directory: str,
    shared: bool = True,
) -> list[Draws]:
    """Probe a task at several seeds, which order the training set and draw A.

    Args:
        experiment: Resolved settings of LoRA on all modules.
        seeds: Two at least.
        rows: Numbers of rows that all draws of an A have together.
        batch_sizes: Numbers of examples in a batch.
        batches: Numbers of batches of a probe.
        directory: Nothing is written there.
        shared: Whether to probe with the same A at all seeds, too.

    Raises:
        ConfigError: There is only one seed.
    """
    if len(seeds) < 2:
        raise ConfigError(f"seeds={list(seeds)} is one seed, and an overlap needs two sets: give at least two seeds.")
    drawn = [*([(True, 1)] if shared else []), *((False, number) for number in rows)]
    cases = [(*draw, *sizes) for sizes in product(batch_sizes, batches) for draw in drawn]
    found: dict[tuple[bool, int, int, int], list[list[str]]] = {case: [] for case in cases}
    for seed in seeds:
        job = job_for(experiment, seed, ALL_METHODS, directory)
        model = load_prepared(job).model
        order = torch.randperm(len(job.work.train), generator=torch.Generator().manual_seed(seed)).tolist()
        for case in cases:
            same, number, size, count = case
            seen = [[job.work.train[i] for i in order[at : at + size]] for at in range(0, size * count, size)]
            set_seed(0 if same else seed)
            _draw_(adapters := find_adapters(model))
            rule = _Probe(adapters, torch.optim.SGD(model.parameters()), WeightLoraConfig(), number)
            gather(model, adapters, rule, Engine(), map(job.work.collate, seen), None, count)
            sizes = [adapter.size for adapter in adapters]
            kept = top_by_parameters(rule.score, sizes, int(DEFAULT_KEEP * sum(sizes))).tolist()
            found[case].append([adapter.name for adapter in compress(adapters, kept)])
    return [Draws(*case, chosen) for case, chosen in found.items()]


class _Probe(GradientProbe):
    """The package's probe, with another number of rows."""

    def __init__(self, adapters: list[LoraAdapter], optimizer: Optimizer, settings: Settings, rows: int) -> None:
        self.rows = rows
        super().__init__(adapters, optimizer, settings)


def _draw_(adapters: list[LoraAdapter]) -> None:
    """Draw A anew, and set B to 0, as PEFT does for a fresh adapter."""
    for adapter in adapters:
        adapter.layer.reset_lora_parameters(adapter.adapter_name, True)
