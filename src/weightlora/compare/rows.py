"""Rows for a comparison: splits that are the same for every method, made deterministically from the user's data."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from datasets import Dataset

from ..errors import DataError
from ..train.arguments import Recipe
from ..train.data import first_rows, lacks_evaluation, read_splits
from ..train.families import make_work
from ..train.labels import classes_in, names_of, warn_of_empty
from ..train.plan import MakeWork
from ..train.rows import numbered
from ..train.settings import DataArguments
from ..train.splitting import before_answer, hold_out, same_text
from ..train.tasks import TaskInfo, find_task
from ..train.work import Source, Work
from ..values import is_number
from ..wording import shown

TEST, VALIDATION = 0.2, 0.1
FEWEST_ROWS = 40
GROUP_BY = ("context", "source", "text", "prompt", "tokens", "messages")
"""Columns that identify a text, the first that the rows have. Rows with the same text are in the same split."""


def make_for(split: str, with_validation: bool) -> MakeWork:
    """What `weightlora.train.prepare` takes as `make`: the work with one of the splits of `split_rows` to evaluate on.

    The rows are read and tokenized once for all runs of the same data arguments, those of the other splits, too: a row
    that does not fit is an error before the first run.

    Args:
        split: `"test"` or `"validation"`.
        with_validation: As in `split_rows`.
    """
    made: dict[str, Work] = {}

    def make(recipe: Recipe, tokenizer: Any, config: Any) -> Work:
        if (key := repr(recipe.data)) not in made:
            task = find_task(recipe.data.task)
            splits, names = split_rows(recipe.data, task, recipe.model.cache_dir, with_validation)
            arguments = replace(recipe.data, class_names=recipe.data.class_names or names)
            work = make_work(Source(task, arguments, splits, tokenizer, config))
            every = work.evaluation
            wanted = [name for name in every if (name == "validation") == (split == "validation")]
            made[key] = replace(
                work,
                evaluation={name: every[name] for name in wanted},
                aside={name: rows for name, rows in every.items() if name not in wanted},
            )
        return made[key]

    return make


def split_rows(
    arguments: DataArguments, task: TaskInfo, cache_dir: str | None, with_validation: bool
) -> tuple[dict[str, Dataset], list[str] | None]:
    """The splits `train`, `validation` and `test`, and the names of the classes where all rows tell them.

    A single file is split: 20 % test, 10 % validation, the rest train. Where there are rows to evaluate on, these are
    the test (under the names of the data set, if there are several such splits), and the validation split is 10 % of
    the training rows.

    Args:
        arguments: The data arguments of `weightlora train`.
        task: The task.
        cache_dir: Where `datasets` keeps prepared data.
        with_validation: Whether a validation split is needed. A single file has one in any case.

    Raises:
        DataError: If there are too few rows, or fewer than 2 classes.
    """
    alone = lacks_evaluation(arguments, task, cache_dir)
    whole = replace(arguments, train_examples=None, eval_examples=None)
    found = read_splits(whole, replace(task, evaluation=()) if alone else task, cache_dir).rows
    names = _class_names(found, task)
    place = str(arguments.train_file or arguments.dataset or task.dataset)
    if alone:
        splits = partition(found["train"], {"test": TEST, "validation": VALIDATION}, place)
    else:
        train, tests = found.pop("train"), found
        splits = partition(train, {"validation": VALIDATION}, place) if with_validation else {"train": train}
        splits |= {"test": next(iter(tests.values()))} if len(tests) == 1 else tests
    return first_rows(splits, arguments), names


def partition(rows: Dataset, shares: Mapping[str, float], place: str) -> dict[str, Dataset]:
    """Split rows by the SHA-256 of their text. Rows with the same text stay together.

    Args:
        rows: The rows, with the columns of a task family.
        shares: Split -> its share of the texts. The rest is `train`.
        place: Where the rows come from, for errors.

    Raises:
        DataError: If there are fewer than 40 distinct texts.
    """
    rows = numbered(rows)
    column = next(name for name in GROUP_BY if name in rows.column_names)
    values = (before_answer(column, value) for value in rows[column])
    texts = [value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str) for value in values]
    if (count := len({*map(same_text, texts)})) < FEWEST_ROWS:
        raise DataError(
            f"{place} has {count} distinct texts, and a comparison that splits them needs at least {FEWEST_ROWS}: "
            "give more rows."
        )
    left, rest, splits = list(range(len(rows))), 1.0, {}
    for name, share in shares.items():
        stay, held = hold_out([texts[index] for index in left], share / rest)
        splits[name] = rows.select([left[index] for index in held])
        left, rest = [left[index] for index in stay], rest - share
    return {"train": rows.select(left), **splits}


def _class_names(splits: Mapping[str, Dataset], task: TaskInfo) -> list[str] | None:
    """The classes of all rows, so that one that a split lacks is known. None where the data or the task names them."""
    column = {"text-classification": "label", "token-classification": "tags"}.get(task.family)
    if column is None or names_of(splits["train"].features[column], task):
        return None
    every = [row for rows in splits.values() for row in rows[column]]
    labels = [label for row in every for label in (row if isinstance(row, list) else [row])]
    names = all(isinstance(label, str) and label.strip() for label in labels)
    if not names and not all(is_number(label) and label >= 0 for label in labels):
        return None  # the family says what is wrong
    if labels and len(set(labels)) < 2:
        raise DataError(
            f"all rows have the label {shown(labels[0])}, and a classifier needs at least 2 classes: add rows of "
            "another class, or name the column of the labels with --columns."
        )
    classes = classes_in(labels, "the data")
    if column == "label" and not names:
        warn_of_empty(classes, [int(label) for label in labels if label in range(len(classes))], "row")
    return classes
