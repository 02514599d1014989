"""Read a data set from files, a directory or the hub, and give its columns the names that the task family uses."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from huggingface_hub import is_offline_mode

from ..errors import DataError
from ..wording import first_line, shown
from .arguments import parse_json
from .layouts import as_causal
from .proposing import example, example_for, one_object
from .rows import numbered
from .settings import DataArguments
from .splitting import before_answer, hold_out
from .tables import BUILDERS, read_files
from .tasks import COLUMNS, OPTIONAL, TaskInfo

ALIASES = {
    "validation": ("validation", "dev", "valid", "val"),
    **{f"validation_{m}": (f"validation_{m}", f"dev_{m}") for m in ("matched", "mismatched")},
}
SHARE = 0.1
"""Share of the training rows that is split off for validation."""

READ = {
    "text-classification": ("text", "pair"),
    "regression": ("text", "pair"),
    "token-classification": ("tokens",),
    "question-answering": ("context",),
    "seq2seq": ("source",),
    "causal-lm": ("text", "prompt", "messages"),
}
"""Columns that the model reads. Rows that are equal in them go to the same split."""

SHARD = r"-\d+(-of-\d+)?(-[0-9a-f]+)?"
"""What follows the name of the split in that of a file with a part of its rows."""

SAVED = ("dataset_dict.json", "state.json")
"""Files in the folders of `save_to_disk()`."""

LOCAL = (".", "/", "~")  # a directory may begin with these, a hub id may not


@dataclass(frozen=True)
class Splits:
    """The rows of a data set.

    Attributes:
        rows: By split, with the columns of the family only. Where validation rows are split off, both splits also have
            the numbers of their rows (`rows.NUMBER`).
        read, unread: Columns of the training data that the model gets, and the others, by their names there.
        split_off: Whether the validation rows were split off the training rows, as the data has no others.
    """

    rows: dict[str, Dataset]
    read: tuple[str, ...]
    unread: tuple[str, ...]
    split_off: bool


def read_splits(arguments: DataArguments, task: TaskInfo, cache_dir: str | None = None) -> Splits:
    """The training split, named `train`, and the splits to evaluate on.

    Raises:
        DataError: No data is given, a file or split is missing, malformed or empty, or a column is missing.
    """
    split_off = lacks_evaluation(arguments, task, cache_dir)
    wanted = ("train",) if split_off else ("train", *task.evaluation)
    columns = _mapping(arguments, task)
    classes = columns["label"] if task.family == "text-classification" else None
    splits = {name: _read(name, arguments, task, cache_dir, classes) for name in wanted}
    given = parse_json("columns", arguments.columns)
    renamed = {name: _rename(name, rows, columns, task.family, given, splits) for name, rows in splits.items()}
    named, unread = {name: rows for name, (rows, _) in renamed.items()}, renamed["train"][1]
    if split_off:
        place = str(arguments.train_file or arguments.dataset or task.dataset)
        named = _split_off(named["train"], task.family, place)
    for name, rows in named.items():
        if len(rows) == 0:
            raise DataError(f"the split {name} is empty, so there is nothing to {_use(name)}: give rows.")
    read = tuple(name for name in splits["train"].column_names if name not in unread)
    return Splits(first_rows(named, arguments), read, unread, split_off)


def first_rows(splits: Mapping[str, Dataset], arguments: DataArguments) -> dict[str, Dataset]:
    """As many of the first rows of each split as the arguments allow."""
    limits = {name: arguments.train_examples if name == "train" else arguments.eval_examples for name in splits}
    return {name: rows.select(range(len(rows))[: limits[name]]) for name, rows in splits.items()}


def lacks_evaluation(arguments: DataArguments, task: TaskInfo, cache_dir: str | None = None) -> bool:
    """Whether the data has training rows and no rows to evaluate on. Then `read_splits` splits validation rows off.

    The data set of a task in the registry has the splits that the task evaluates. Of any other data set on the hub,
    only the names of the splits are read.
    """
    if not task.evaluation:  # the caller wants the training rows alone
        return False
    if arguments.train_file:
        return arguments.validation_file is None
    source, config = arguments.dataset or task.dataset, arguments.dataset_config or task.config
    if arguments.validation_file or source is None:
        return False
    wanted = ("train", *task.evaluation)
    if os.path.isdir(source):
        found = [name for name in wanted if files_of(Path(source), config, name)]
    elif source == task.dataset or source.startswith(LOCAL):
        return False
    else:
        names = _hub_splits(source, config, cache_dir)
        found = [name for name in wanted if name in names]
    return found == ["train"]


def _hub_splits(name: str, config: str | None, cache_dir: str | None) -> list[str]:
    """Names of the splits; empty if the hub cannot say. Then reading the rows fails, and that error says why."""
    try:
        names: list[str] = datasets.get_dataset_split_names(name, config, cache_dir=cache_dir)
        return names
    except (OSError, ValueError):  # every error of the hub is one of them
        return []


def _split_off(rows: Dataset, family: str, place: str) -> dict[str, Dataset]:
    """A tenth of the rows as `validation`, chosen by the hash of what the model reads."""
    rows = numbered(rows)
    columns = [name for name in READ[family] if name in rows.column_names]
    texts = [
        json.dumps([before_answer(name, row[name]) for name in columns], default=str)
        for row in rows.select_columns(columns)
    ]
    if len(rows) == 1:
        raise DataError(f"{place} has one row, and a part for validation is split off: give more.{one_object(rows)}")
    what = "chat before its answer" if columns == ["messages"] else " and ".join(columns)
    train, validation = hold_out(texts, SHARE, place, what)
    return {"train": rows.select(train), "validation": rows.select(validation)}


def _use(split: str) -> str:
    return "train on" if split == "train" else "evaluate on"


def _read(split: str, arguments: DataArguments, task: TaskInfo, cache_dir: str | None, classes: str | None) -> Dataset:
    file = arguments.train_file if split == "train" else arguments.validation_file
    given = arguments.train_file or arguments.validation_file
    if given and arguments.dataset and arguments.dataset != task.dataset:
        raise DataError(f"--dataset {arguments.dataset} and the file {given} are two sources: give one of them.")
    if file is not None:
        return read_files([Path(file)], split, cache_dir, classes)
    if given:
        name = "train_file" if split == "train" else "validation_file"
        raise DataError(f"{given} is given, but nothing to {_use(split)}: give --{name}, too.")
    source = arguments.dataset or task.dataset
    if source is None:
        raise DataError("there is no data: give --dataset, or --train_file.")
    config = arguments.dataset_config or task.config
    if os.path.isdir(source):
        return read_files(_find_files(Path(source), config, split), split, cache_dir, classes)
    if source.startswith(LOCAL):
        raise DataError(f"the directory {source} is missing: give one with the files of the data set, or a hub id.")
    return _read_hub(source, config, split, cache_dir)


def _find_files(directory: Path, config: str | None, split: str) -> list[Path]:
    if found := files_of(directory, config, split):
        return found
    endings = ", ".join(BUILDERS)
    remedy = f"a file {split}, with one of the endings {endings}, is missing"
    if any((directory / name).is_file() for name in SAVED):
        remedy = f"save_to_disk() wrote it; write its splits with to_parquet({split + '.parquet'!r}) instead"
    raise DataError(f"{directory} has no split {split}: {remedy}.")


def files_of(directory: Path, config: str | None, split: str) -> list[Path]:
    """`<split>.<ending>` or shards `<split>-00000-of-00002.<ending>`, in the directory or its folder of the config.

    Raises:
        DataError: There are files with different endings, or one file for the split and shards of it.
    """
    folders = [directory / config, directory] if config else [directory]
    for folder in folders:
        for name in ALIASES.get(split, (split,)):
            every = sorted(folder.glob(f"{name}*"))
            files = [[path for path in every if path.suffix.lower() == end] for end in BUILDERS]
            whole = [[path for path in paths if path.stem == name] for paths in files]
            shards = [[path for path in paths if re.fullmatch(SHARD, path.stem[len(name) :])] for paths in files]
            found = [paths for paths in (*whole, *shards) if paths]
            if len(found) > 1:
                raise DataError(
                    f"{folder} has {found[0][0].name} and {found[1][0].name} for {split}: keep the files of one kind."
                )
            if found:
                return found[0]
    return []


def _read_hub(name: str, config: str | None, split: str, cache_dir: str | None) -> Dataset:
    try:
        return datasets.load_dataset(name, config, split=split, cache_dir=cache_dir)
    except (OSError, ValueError) as error:  # every error of the hub is one of them
        offline = " (HF_HUB_OFFLINE is set)" if is_offline_mode() else ""
        raise DataError(
            f"the data set {name} cannot be loaded from the hub{offline}: {first_line(error)}; give --dataset a "
            "directory with its files."
        ) from error


def _mapping(arguments: DataArguments, task: TaskInfo) -> dict[str, str | None]:
    """Name in the family -> column. The user's names override those of the task, and these override the defaults."""
    known = COLUMNS[task.family]
    given = parse_json("columns", arguments.columns, f"write {example(task.family)}")
    for name in given:
        if name not in known:
            raise DataError(
                f"columns has {name!r}, which {task.family} does not read: it reads {', '.join(known)}, as in "
                f"{example(task.family)}."
            )
    for name, column in given.items():
        if not isinstance(column, str | None) or (column is None and name not in OPTIONAL):
            raise DataError(
                f"columns has {shown(column)} for {name}, which is no column: write {example(task.family, name)}."
            )
    return {**known, **task.columns, **given}


def _rename(
    split: str,
    rows: Dataset,
    columns: dict[str, str | None],
    family: str,
    given: Mapping[str, Any],
    splits: Mapping[str, Dataset],
) -> tuple[Dataset, tuple[str, ...]]:
    """The rows with the columns of the family, and the names of those that are left out. `splits` are all as read."""
    before, read = rows.column_names, {*columns.values()}
    if family == "causal-lm":  # it has one of several forms
        rows, columns, read = as_causal(split, rows, columns, given)
    chosen: dict[str, str] = {}
    for name, column in columns.items():
        if column is None or (
            name in OPTIONAL and column not in rows.column_names and column == COLUMNS[family][name]
        ):
            continue
        if column not in rows.column_names:
            has = ", ".join(rows.column_names)
            if any(column in others.column_names for others in splits.values()):
                raise DataError(
                    f"{split} has no column {column!r} (its {name}), which other splits have: it has {has}; "
                    f"rename one of its columns to {column!r}."
                )
            raise DataError(
                f"{split} has no column {column!r} (its {name}): it has {has}; name the right one, as in "
                f"{example_for(rows, columns, given, name)}.{one_object(rows)}"
            )
        if column in chosen:
            raise DataError(f"the column {column!r} is named for both {chosen[column]} and {name}: name another one.")
        chosen[column] = name
    rows = rows.select_columns(list(chosen))
    try:
        rows.data.validate(full=True)
    except ValueError as error:  # Arrow reads bytes that are no text, and fails when a row is asked for
        raise DataError(f"{split} has a text that is not in UTF-8: {first_line(error)}; save it as UTF-8.") from error
    return rows.rename_columns({c: n for c, n in chosen.items() if c != n}), tuple(
        name for name in before if name not in read
    )
