"""What a workload is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weightlora.train.tasks import TaskInfo
from weightlora.train.work import Source, Work

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Workload:
    """A task of the benchmark on one model.

    Attributes:
        model: Gives the directory of the model.
        splits: Reads `"train"`, `"validation"` and `"test"`.
        task: Family, class names, words and metrics.
        work: Makes the work from a source with the training split and the split that is evaluated, and the settings of
            the experiment.
        target_modules: PEFT's: names, `all-linear` or a regular expression.
        settings: More arguments of `weightlora train`.
        cut_rows: Whether the experiment's `train_examples` and so on cut the rows of a split.
    """

    model: Callable[[], Path]
    splits: Callable[[], Mapping[str, Rows]]
    task: TaskInfo
    work: Callable[[Source, Mapping[str, Any]], Work]
    target_modules: str
    settings: dict[str, Any] = field(default_factory=dict)
    cut_rows: bool = True
