"""What a family makes from rows for a Trainer, and the checks that all families share."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import EvalPrediction, PreTrainedTokenizerBase

from ..errors import ConfigError, DataError
from .arguments import DataArguments
from .rows import NUMBER, name_row
from .tasks import TaskInfo
from .wording import shown

__all__ = ["Family", "Source", "Work", "class_ids", "classes_in", "names_of", "padding", "room_for"]

MOST_EMPTY = 1000
"""Classes that numbers may make in a file with fewer labels: a part of a data set may lack most of its classes."""

MOST_SHOWN = 12
"""Classes that an error lists."""

TRUTHS = ("false", "true")
"""Names of the two classes that truth values make."""

LONGEST = 2**24
"""Tokens of an input where the model has no limit."""

Metrics = Callable[[EvalPrediction], dict[str, float]]
Preprocess = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Source:
    """What a family needs: the task, its arguments, the rows by split, the tokenizer and the model's config."""

    task: TaskInfo
    arguments: DataArguments
    splits: Mapping[str, Dataset]
    tokenizer: PreTrainedTokenizerBase
    config: Any

    @property
    def evaluated(self) -> list[str]:
        return [name for name in self.splits if name != "train"]


@dataclass(frozen=True)
class Work:
    """A task that is ready to train on.

    Attributes:
        auto_class: The class of Transformers that loads the model.
        task_type: The task type of PEFT.
        train: Tokenized rows.
        evaluation: Tokenized rows by split.
        collate: Makes a batch of rows.
        metrics: `compute_metrics` by split.
        metric: Name of the metric that is compared.
        reported: Names of all reported metrics, besides `held_out_loss`.
        units: Metric -> `"fraction"` or `"percent"`; other metrics have no unit.
        config: Settings of the model's config, such as `id2label`.
        preprocess: `preprocess_logits_for_metrics`, if the logits are too large to keep.
        label_names: `TrainingArguments.label_names`.
        generates: Whether metrics are of generated text.
        forced: `preprocess` and `metrics` of a second evaluation that generates nothing: the model predicts each token
            of the right text from the ones before it. That gives `held_out_loss` where `generates`.
    """

    auto_class: str
    task_type: str
    train: Dataset
    evaluation: Mapping[str, Dataset]
    collate: Callable[[list[dict[str, Any]]], Any]
    metrics: Mapping[str, Metrics]
    metric: str
    reported: tuple[str, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    label_names: Sequence[str] = ("labels",)
    generates: bool = False
    forced: tuple[Preprocess, Metrics] | None = None


Family = Callable[[Source], Work]


def padding(source: Source) -> dict[str, Any]:
    """How collators pad: to the longest row of a batch, or always to `max_length` with `pad_to_max_length`."""
    if source.arguments.pad_to_max_length:
        return {"padding": "max_length", "max_length": source.arguments.max_length}
    return {"padding": True, "pad_to_multiple_of": 8}


def room_for(source: Source, name: str = "max_length") -> int:
    """The length that inputs are cut to.

    Raises:
        ConfigError: It is longer than the model or its tokenizer allows, or too short for a text.
    """
    length: int = getattr(source.arguments, name)
    config = source.config
    limits = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    limits.append(source.tokenizer.model_max_length)
    limit = min(LONGEST, *(value for value in limits if value))
    if length > limit:
        raise ConfigError(f"{name}={length} is longer than the model's {limit} positions: give at most {limit}.")
    if length < 4:
        raise ConfigError(f"{name}={length} leaves no room for a text between the special tokens: give at least 4.")
    return length


def class_ids(source: Source, column: str = "label") -> tuple[list[str], dict[str, list[Any]]]:
    """Names of the classes, and by split each row's class, or list of classes for the column `tags`.

    Labels are whole numbers or names; `true` and `false` are names. The names are given, or those of the data set, of
    the task, or all in `train`, and in the rows that were split off it. A whole number is a place among names that are
    given or of a data set or a task, unless such a name is a number, too. Otherwise it is the name itself.

    Raises:
        DataError: A label is missing or is not one of the classes, or there is only one class.
        ConfigError: A class name is given twice.
    """

    def place(split: str, row: int) -> str:
        return name_row(source.splits[split], split, row)

    values = {name: [_named(label) for label in rows[column]] for name, rows in source.splits.items()}
    for split, rows in values.items():
        for row, labels in enumerate(rows):
            for label in labels if column == "tags" else [labels]:
                if not isinstance(label, str) and _whole(label) is None:
                    raise DataError(
                        f"{place(split, row)} has an empty field as its label: mend the row, or leave it out."
                        if label is None
                        else f"the label {shown(label)} in {place(split, row)} is neither a whole number nor a name: "
                        "mend the row, leave it out" + (", or use --task regression." if _is_fraction(label) else ".")
                    )
    flat = [
        label
        for split, rows in values.items()
        if split == "train" or NUMBER in source.splits[split].column_names
        for label in _flat(rows, column)
    ]
    given, own = source.arguments.class_names, {n: _own_names(r.features[column]) for n, r in source.splits.items()}
    names = list(given or names_of(source.splits["train"].features[column], source.task) or ())
    if len(set(names)) < len(names):
        raise ConfigError(f"class_names={names} has a name twice: give each class another name.")
    named = bool(names)
    if not named:
        names = classes_in(flat, "train")
    if len(names) < 2:
        only = f"only the label {shown(flat[0])}" if flat else "no label"
        raise DataError(f"train has {only}: give rows of at least two classes.")
    numbers = {name: number for number, name in enumerate(names)}
    counted = names == [str(number) for number in range(len(names))]
    numbered = not given and (bool(own["train"]) or not (named or counted))  # each file may number its own classes
    truths = {name.lower(): number for name, number in numbers.items() if name.lower() in TRUTHS}
    ordered = (named and not any(map(str.isdecimal, names))) or tuple(names) == TRUTHS
    places = {split: bool(mine) or ordered for split, mine in own.items()}

    def number_of(label: Any, split: str, row: int) -> int:
        mine = own[split]
        if mine and numbered and not isinstance(label, str) and 0 <= label < len(mine):
            label = mine[label]
        whole = None if isinstance(label, str) else _whole(label)
        name = str(label if whole is None else whole)
        number = whole if whole is not None and places[split] else numbers.get(name, truths.get(name.lower()))
        if number is not None and 0 <= number < len(names):
            return number
        what = f"the label {shown(label)} in {place(split, row)}"
        if not named and split != "train" and (more := _with_class(names, label)):
            example = shlex.join(more[:MOST_SHOWN]) + (" ..." if len(more) > MOST_SHOWN else "")
            raise DataError(
                f"{what} is that of no training row: add such a row, or give all classes, as in --class_names "
                f"{example}."
            )
        known = ", ".join(names[:8]) + ("..." if len(names) > 8 else "")
        if not counted and not places[split]:
            raise DataError(f"{what} is none of the {len(names)} classes ({known}): mend the row, or leave it out.")
        raise DataError(f"{what} is out of range: there are {len(names)} classes, 0 to {len(names) - 1} ({known}).")

    ids = {
        split: [
            [number_of(label, split, row) for label in labels] if column == "tags" else number_of(labels, split, row)
            for row, labels in enumerate(rows)
        ]
        for split, rows in values.items()
    }
    return names, ids


def names_of(feature: Any, task: TaskInfo) -> Sequence[str] | None:
    """The names of the classes, if the data set or the task has them."""
    return _own_names(feature) or task.class_names or None


def _own_names(feature: Any) -> Sequence[str] | None:
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def classes_in(labels: Sequence[Any], place: str) -> list[str]:
    """The names of the classes that labels tell: all names in alphabetical order, or 0 to the largest number.

    Args:
        labels: Names, whole numbers, or `true` and `false`. Others are not looked at.
        place: Where they come from, for the error.

    Raises:
        DataError: The largest number is far above the number of labels.
    """
    labels = [_named(label) for label in labels]
    if labels and all(isinstance(label, str) for label in labels):
        return sorted(set(labels))
    largest = max((number for label in labels if (number := _whole(label)) is not None), default=0)
    if largest >= max(MOST_EMPTY, len(labels)):  # the head and the config have something for each class
        raise DataError(
            f"the label {shown(largest)} in {place} would make {largest + 1:.10g} classes for {len(labels):,} labels: "
            "number the classes from 0 without gaps, or give their names as labels."
        )
    return [str(number) for number in range(largest + 1)]


def _with_class(names: list[str], label: Any) -> list[str]:
    """The classes with that of a label, for an example; empty if it can be none."""
    number = None if isinstance(label, str) else _whole(label)
    if number is None or not all(map(str.isdecimal, names)):
        return sorted({*names, str(label if number is None else number)})
    return [str(one) for one in range(number + 1)] if len(names) <= number < MOST_EMPTY else []


def _flat(values: Sequence[Any], column: str) -> list[Any]:
    return [label for row in values for label in row] if column == "tags" else list(values)


def _named(label: Any) -> Any:
    """What readers of JSON and CSV take for a truth value is a name."""
    return str(label).lower() if isinstance(label, bool) else label


def _is_fraction(label: Any) -> bool:
    return isinstance(label, float) and math.isfinite(label)


def _whole(label: Any) -> int | None:
    """A label as a number. A column with a missing or a broken number has all its numbers as floats."""
    if isinstance(label, int):
        return label
    return int(label) if isinstance(label, float) and label.is_integer() else None
