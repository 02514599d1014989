"""Labels of classes, and the class that each label is."""

import math
import shlex
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from datasets import Dataset
from scipy.stats import entropy

from ..errors import ConfigError, DataError
from ..values import is_numeral
from ..wording import printable, shown
from .joining import names_in
from .rows import NUMBER, name_row
from .tasks import TaskInfo
from .work import Source

Labels = Sequence[Sequence[Any]]
"""The labels of each row, as they were read."""

MOST_EMPTY = 1000
"""Classes that numbers may make in a file with fewer labels: a part of a data set may lack most of its classes."""

MOST_SHOWN = 12
"""Classes that an error lists."""

NO_LABEL = ("-", "-1", "N/A", "n/a", "null")
"""What data sets write for a row without a label."""

TRUTHS = ["false", "true"]
"""Names of the two classes that truth values make."""


def guess_loss(ids: Iterable[int]) -> float:
    """The loss of always predicting how often each class occurs: the entropy of the classes, in nats."""
    return float(entropy([*Counter(ids).values()]))


def class_ids(source: Source, column: str = "label", head: bool = True) -> tuple[list[str], dict[str, list[Any]]]:
    """Names of the classes, and by split each row's class, or list of classes for the column `tags`.

    The names are given, or those of the data set, of the task, or all labels in `train` and in the rows that were
    split off it. If the model's head was trained on classes of these names, they have its order. Labels are names,
    which `true` and `false` are, too, or whole numbers (`_finder`).

    Args:
        source: The rows, and what was said of them.
        column: Where the labels are.
        head: Whether a head of the model has the classes. A model that answers with words has none.

    Raises:
        DataError: A label is missing or is not one of the classes, or there is only one class.
        ConfigError: A class name is given twice, or only one is given, or the task has a metric of two
            classes and there are more.
    """
    several = column == "tags"  # each row has a list of labels
    given: Sequence[str] = source.arguments.class_names or ()
    known = given or names_of(source.splits["train"].features[column], source.task)
    values = {
        split: [[_named(label) for label in (row if several else [row])] for row in rows[column][:]]
        for split, rows in source.splits.items()
    }
    for split, rows in values.items():
        _check(rows, given, source.splits[split], split)
    names = _names_for(source, values, known)
    if "f1" in source.task.metrics and not several and len(names) > 2:
        raise ConfigError(
            f"{source.arguments.task} reports the F1 score of the second of two classes, and there are {len(names)}: "
            "use --task text-classification."
        )
    own = {split: names_in(rows.features[column]) for split, rows in source.splits.items()}
    if not given:
        _check_common(own)
    ids = {
        split: _numbers_for(source.splits[split], split, rows, names, own[split], bool(known))
        for split, rows in values.items()
    }
    if not several and len({number for [number] in ids["train"]}) == 1:
        remedy = ", or more --train_examples, which are the first rows" if source.arguments.train_examples else ""
        raise DataError(
            f"train has only the label {shown(values['train'][0][0])}: give rows of at least two classes{remedy}."
        )
    _warn_of_alike(names, [] if given else NO_LABEL)
    if not (known or several):
        warn_of_empty(names, [number for [number] in ids["train"]], "training row")
    if head and (several or "f1" not in source.task.metrics):  # which is that of class 1
        names, ids = _as_in_checkpoint(names, ids, source.config)
    return names, ids if several else {split: [number for [number] in rows] for split, rows in ids.items()}


def _names_for(source: Source, values: Mapping[str, Labels], known: Sequence[str] | None) -> list[str]:
    """The names of the classes: those that are known, or else those of the labels to train on.

    Raises:
        DataError: Labels are names and numbers, or there are fewer than two.
        ConfigError: A known name is there twice, or only one was given.
    """
    training = [
        label
        for split, rows in values.items()
        if split == "train" or NUMBER in source.splits[split].column_names  # rows that were split off
        for labels in rows
        for label in labels
    ]
    if not known and (named := [one for one in training if isinstance(one, str)]) and len(named) < len(training):
        number = next(one for one in training if not isinstance(one, str))
        raise DataError(
            f"train has names and numbers as labels, such as {shown(named[0])} and {shown(number)}: write all as "
            "names, or all as numbers."
        )
    names = list(known or classes_in(training, "train"))
    if len(set(names)) < len(names):
        raise ConfigError(f"class_names={names} has a name twice: give each class another name.")
    if len(names) < 2 and source.arguments.class_names:
        raise ConfigError(
            f"class_names={names} has one name: give the names of all classes, with spaces between them."
        )
    if len(names) < 2:
        only = f"only the label {shown(training[0])}" if training else "no label"
        raise DataError(f"train has {only}: give rows of at least two classes.")
    return names


def _numbers_for(
    rows: Dataset, split: str, values: Labels, names: list[str], own: Sequence[str], known: bool
) -> list[list[Any]]:
    """The class of each label; a `DataError` for one that has none. See `_finder` for the last arguments."""
    find = _finder(names, own, known)
    ids = [[find(label) for label in labels] for labels in values]
    for row, (labels, found) in enumerate(zip(values, ids, strict=True)):
        if None in found:
            label = labels[found.index(None)]
            what = f"the label {shown(label)} in {name_row(rows, split, row)}"
            raise DataError(_unknown(what, label, names, told=known or split == "train"))
    return ids


def _check(values: Labels, given: Sequence[str], rows: Dataset, split: str) -> None:
    """Raise a `DataError` for the first label of a split that is neither a name nor a whole number."""
    for row, labels in enumerate(values):
        for label in labels:
            if label is None or (isinstance(label, str) and not label.strip() and label not in given):
                raise DataError(
                    f"{name_row(rows, split, row)} has an empty field as its label: fix the row, or leave it out."
                )
            if not isinstance(label, str) and _whole(label) is None:
                fraction = isinstance(label, float) and math.isfinite(label)
                remedy = "leave it out, or use --task regression" if fraction else "or leave it out"
                raise DataError(
                    f"the label {shown(label)} in {name_row(rows, split, row)} is neither a whole number nor a name: "
                    f"fix the row, {remedy}."
                )


def _warn_of_alike(names: Sequence[str], doubtful: Collection[str]) -> None:
    """Warn of classes that may be one, or none, as doubtful ones may."""
    if no_label := [name for name in names if name in doubtful]:
        warnings.warn(
            f"the label {no_label[0]!r} counts as a class: leave its rows out if they have no label.", stacklevel=2
        )
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.strip().casefold()].append(name)
    if one := next((several for several in alike.values() if len(several) > 1), None):
        warnings.warn(
            f"the classes {one[0]!r} and {one[1]!r} differ only in case or white space, and count as two: fix the "
            "labels if they are one.",
            stacklevel=2,
        )


def warn_of_empty(names: Sequence[str], numbers: Collection[int], row: str) -> None:
    """Warn of classes that are not among the numbers of those of the rows."""
    there = {names[number] for number in numbers}
    if empty := [name for name in names if name not in there]:
        remedy = "all its rows are in the validation split, or were left out. Add more of them."
        if all(map(str.isdecimal, names)):
            remedy = (
                f"there are {len(names)} classes, which count from 0. If that is wrong, give the true ones with "
                "--class_names."
            )
        warnings.warn(
            f"no {row} has the label {', '.join(map(printable, empty[:MOST_SHOWN]))}: {remedy}", stacklevel=2
        )


def _as_in_checkpoint(names: list[str], ids: dict[str, list[Any]], config: Any) -> tuple[list[str], dict[str, Any]]:
    """Names and classes in the order of the model's head, if it was trained on classes of these names."""
    trained = [str(name) for _, name in sorted((getattr(config, "id2label", None) or {}).items())]
    if sorted(trained) != sorted(names):
        return names, ids
    new = [trained.index(name) for name in names]
    return trained, {split: [[new[number] for number in row] for row in rows] for split, rows in ids.items()}


def _check_common(own: Mapping[str, Sequence[str]]) -> None:
    """Raise a `DataError` if two files name their classes, and have no name in common: whose numbers are whose?"""
    for split, names in own.items():
        if names and own["train"] and set(names).isdisjoint(own["train"]):
            raise DataError(
                f"{split} names its classes {', '.join(names[:MOST_SHOWN])}, and train "
                f"{', '.join(own['train'][:MOST_SHOWN])}: give the files the same names, or the names in the order of "
                "the numbers with --class_names."
            )


def _finder(names: Sequence[str], own: Sequence[str], known: bool) -> Callable[[Any], int | None]:
    """A function that says which of the names a label is, or None.

    A number in a file that names its classes is the name that the file has there, if the two have a name in common:
    files may number the same classes differently. Without a common name, it is the place of the class. In another
    file, too, it is a place, where the names are known and are no numbers; otherwise it is a name itself.
    """
    by_name = {name: number for number, name in enumerate(names)}
    truths = {name.lower(): number for name, number in by_name.items() if name.lower() in TRUTHS}
    same_classes = not by_name.keys().isdisjoint(own)
    places = (known and not any(map(is_numeral, names))) or list(names) == TRUTHS or bool(own)

    def find(label: Any) -> int | None:
        if not isinstance(label, str):
            number = _whole(label)
            if number is None or (same_classes and not 0 <= number < len(own)):
                return None
            if places and not same_classes:
                return number if 0 <= number < len(names) else None
            label = own[number] if same_classes else str(number)
        return by_name.get(label, truths.get(label.lower()))

    return find


def _unknown(what: str, label: Any, names: list[str], told: bool) -> str:
    """The error about a label that is none of the classes. `told`: whether the names come from more than the rows."""
    if not told and (more := _with_class(names, label)):
        example = shlex.join(more[:MOST_SHOWN]) + (" ..." if len(more) > MOST_SHOWN else "")
        return (
            f"{what} is not the label of any training row: add such a row, or give all classes, as in --class_names "
            f"{example}."
        )
    known = ", ".join(names[:8]) + ("..." if len(names) > 8 else "")
    if isinstance(label, str) or (any(map(str.isdecimal, names)) and names[0] != "0"):
        return f"{what} is none of the {len(names)} classes ({known}): fix the row, or leave it out."
    if label < 0:
        return f"{what} is below 0, and classes count from 0: leave the row out if it has no label, or fix it."
    return (
        f"{what} is out of range: there are {len(names)} classes, 0 to {len(names) - 1} ({known}). Fix the row, or "
        "name all classes with --class_names."
    )


def names_of(feature: Any, task: TaskInfo) -> Sequence[str] | None:
    """The names of the classes, if the data set or the task has them."""
    return names_in(feature) or task.class_names or None


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


def _named(label: Any) -> Any:
    """What readers of JSON and CSV take for a truth value is a name."""
    return str(label).lower() if isinstance(label, bool) else label


def _whole(label: Any) -> int | None:
    """A label as a number. A column with a missing or a broken number has all its numbers as floats."""
    if isinstance(label, int):
        return label
    return int(label) if isinstance(label, float) and label.is_integer() else None
