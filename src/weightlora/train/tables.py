"""Read data files as tables: JSON, CSV, TSV and Parquet."""

import glob
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Value

from ..errors import DataError
from ..wording import first_line
from .reading import check_columns, check_file, check_json

__all__ = ["BUILDERS", "read_files", "with_numbers"]

NAMES_ARE_TEXT = {"keep_default_na": False, "na_values": [""]}
"""For pandas, which else takes `None`, `NA`, `null` and others for empty fields: they may be names of classes."""

# How `datasets` reads a file, by its ending. GLUE's TSV files have bare quotation marks in their texts.
BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", NAMES_ARE_TEXT),
    ".tsv": ("csv", {"delimiter": "\t", "quoting": 3, **NAMES_ARE_TEXT}),
    ".parquet": ("parquet", {}),
}
PART, WHOLE = 10 * 2**20, 2**30
"""Bytes of a JSON file that `datasets` takes the columns and their types from, and that it can read at once."""
NESTED = "paragraphs"  # the official SQuAD files are articles of paragraphs of questions
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d+)?")
TRUTH = re.compile("[Tt]rue|TRUE|[Ff]alse|FALSE")


def read_files(paths: list[Path], split: str, cache_dir: str | None, classes: str | None) -> Dataset:
    """The rows of files. In CSV files all fields are texts, but for the column of classes where it has numbers."""
    for path in paths:
        check_file(path, split)
        if path.suffix.lower() not in BUILDERS:
            raise DataError(f"the file {path} has no known ending: known are {', '.join(BUILDERS)}.")
        if BUILDERS[path.suffix.lower()][0] == "json":
            check_json(path)
    ending = paths[0].suffix.lower()
    builder, settings = BUILDERS[ending]
    if builder == "csv":  # without types for all columns, each 10,000 rows have their own, which may not fit together
        names = [name for path in paths for name in check_columns(path, settings)]
        settings = {**settings, "features": Features(dict.fromkeys(names, Value("string"))) or None}
    nested = ending == ".json" and _is_nested(paths[0])
    if nested:
        settings = {**settings, "field": "data"}
    try:
        rows = _load(builder, paths, split, cache_dir, settings)
    except Exception as error:  # of many kinds, also those of pandas and Arrow
        if "corresponds to no data" in str(error):  # it has only a header
            raise DataError(
                f"the split {split} is empty: {paths[0]} has no rows; add some, or give another file."
            ) from error
        cause = error.__cause__ or error
        remedy = "; save it as UTF-8" if isinstance(cause, UnicodeDecodeError) else ""
        if str(cause).startswith("Couldn't cast"):
            remedy = "; give all rows the same fields, with values of the same types"
        raise DataError(f"the file {paths[0]} cannot be read: {first_line(cause)}{remedy}.") from error
    if builder == "csv" and classes is not None and classes in rows.column_names:
        rows = with_numbers(rows, classes)
    try:
        return Dataset.from_list(list(_flatten(rows))) if nested else rows
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"the file {paths[0]} is not in SQuAD's format ({first_line(error)}): correct it.") from error


def _load(builder: str, paths: list[Path], split: str, cache_dir: str | None, settings: dict[str, Any]) -> Dataset:
    named = [glob.escape(str(path)) for path in paths]  # datasets takes names for patterns, which match other files
    load = partial(datasets.load_dataset, builder, data_files={split: named}, split=split, cache_dir=cache_dir)
    size = max(path.stat().st_size for path in paths)
    try:
        return load(**settings)
    except Exception:
        if builder != "json" or not PART < size <= WHOLE:
            raise
    return load(**settings, chunksize=size)  # a field that the first part lacks is no error then


def _is_nested(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return f'"{NESTED}"' in file.read(4096)


def _flatten(articles: Dataset) -> Iterator[dict[str, Any]]:
    """The official SQuAD files with the columns of the hub: one row per question, its answers as parallel lists."""
    for article in articles:
        for paragraph in article[NESTED]:
            for question in paragraph["qas"]:
                answers = question["answers"] or []
                yield {
                    "id": question["id"],
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": {
                        "text": [answer["text"] for answer in answers],
                        "answer_start": [answer["answer_start"] for answer in answers],
                    },
                }


def with_numbers(rows: Dataset, column: str) -> Dataset:
    """The rows, with numbers or truth values as labels where the column of labels has nothing else.

    A number that is written in another way than usual, such as `007`, is a name. Spaces around a number do not count.
    """
    fields = {field: field.strip() for field in rows.unique(column) if field is not None}
    written = fields.values()
    known: dict[str, Any] = {field: text if NUMBER.fullmatch(text) else field for field, text in fields.items()}
    if fields and all(map(TRUTH.fullmatch, fields)):
        known = {field: field.lower() == "true" for field in fields}
    elif fields and all(map(NUMBER.fullmatch, written)):
        kind = float if any("." in text for text in written) else int
        known = {field: kind(text) for field, text in fields.items()}
    values = [known.get(field) for field in rows[column][:]]  # a cast would copy the texts, too
    return rows.remove_columns(column).add_column(column, values).select_columns(rows.column_names)
