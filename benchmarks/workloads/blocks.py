"""Language modelling on blocks of tokens."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from weightlora.train.families.causal import packed
from weightlora.train.tasks import TaskInfo
from weightlora.train.work import Source, Work

from .workload import Rows, Workload

TEXT = TaskInfo("causal-lm", metrics=("perplexity",))


def language_modelling(
    model: Callable[[], Path], splits: Callable[[], Mapping[str, Rows]], settings: dict[str, Any]
) -> Workload:
    """Next-token prediction on blocks of `max_length` tokens. The experiment's examples of a split are blocks."""
    return Workload(model, splits, TEXT, _blocks, "all-linear", settings, cut_rows=False)


def _blocks(source: Source, experiment: Mapping[str, Any]) -> Work:
    return packed(source, {split: experiment[f"{split}_examples"] for split in source.splits})
