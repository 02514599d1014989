"""Read data files as tables: JSON, CSV, TSV and Parquet."""

import codecs
import csv
import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset, Features, Value, concatenate_datasets
from pyarrow.json import ParseOptions, ReadOptions, read_json

from ..errors import DataError
from ..wording import first_line, shown
from .joining import joined
from .verbatim import DEEPEST_ROW

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
REMEDIES = {
    "json": "; write one JSON object per line, or a list of them",
    "csv": "; give each line as many fields as the header has, and put fields with a delimiter in quotes",
    "parquet": "; write it again",
}
"""What to do with a file that its reader refuses."""
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
PART, WHOLE = 2**28, 2**30
"""Bytes of a JSON file that are read at once: its types are those of the first part, or of all if that fails."""
NESTED = "paragraphs"  # the official SQuAD files are articles of paragraphs of questions
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d+)?")
STRING, BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?'), re.compile(rb"[\[\]{}]")
FIRST_NULL = re.compile(b"(?:%s)?" % codecs.BOM_UTF8 + rb"\s*\[?\s*null\b")
TRUTH = re.compile("[Tt]rue|TRUE|[Ff]alse|FALSE")


def read_files(paths: list[Path], split: str, cache_dir: str | None, classes: str | None) -> Dataset:
    """The rows of files. In CSV files all fields are texts, but for the column of classes where it has numbers."""
    for path in paths:
        check_file(path, split)
        if path.suffix.lower() not in BUILDERS:
            remedy = "unpack it" if path.suffix.lower() in PACKED else f"known are {', '.join(BUILDERS)}"
            raise DataError(f"the file {path} has no known ending: {remedy}.")
        if BUILDERS[path.suffix.lower()][0] == "json":
            check_json(path)
    # Each by itself: datasets takes the types of the first one, and casts the values of the others.
    nested = any(path.suffix.lower() == ".json" and _is_nested(path) for path in paths)
    parts = [_read(path, split, cache_dir, nested and path.suffix.lower() == ".json") for path in paths]
    full = [part for part in parts if part is not None and len(part)]
    if not full:
        raise DataError(f"the split {split} is empty: {paths[0]} has no rows; add some, or give another file.")
    rows = joined(full)
    texts = BUILDERS[paths[0].suffix.lower()][0] == "csv"
    return with_numbers(rows, classes) if texts and classes is not None and classes in rows.column_names else rows


def _read(path: Path, split: str, cache_dir: str | None, nested: bool) -> Dataset | None:
    """The rows of a file; None if it has none."""
    builder, settings = BUILDERS[path.suffix.lower()]
    if builder == "csv":  # without types for all columns, each 10,000 rows have their own, which may not fit together
        names = check_columns(path, settings)
        settings = {**settings, "features": Features(dict.fromkeys(names, Value("string"))) or None}
    if nested:
        settings = {**settings, "field": "data"}
    try:
        rows = _load(builder, path, split, cache_dir, settings)
    except Exception as error:  # of many kinds, also those of pandas and Arrow
        cause = error.__cause__ or error
        if "corresponds to no data" in str(error) or str(cause).startswith("BatchSize must be greater"):
            return None
        if isinstance(cause, PermissionError):
            raise DataError(f"{cause.filename} cannot be used ({cause.strerror}): change its permissions.") from error
        remedy = "; save it as UTF-8" if isinstance(cause, UnicodeDecodeError) else REMEDIES[builder]
        if str(cause).startswith("Couldn't cast"):
            remedy = "; give all rows the same fields, with values of the same types"
        raise DataError(f"the file {path} cannot be read: {first_line(cause)}{remedy}.") from error
    if builder == "json" and not nested and "'timestamp[" in str(rows.features):
        rows = _as_written(path, rows)
    try:
        return Dataset.from_list(list(_flatten(rows))) if nested else rows
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"the file {path} is not in SQuAD's format ({first_line(error)}): correct it.") from error


def check_file(path: Path, split: str) -> None:
    """Raise a `DataError` if there is no file for a split at this path, or if datasets cannot read from there."""
    if os.path.isdir(path):
        raise DataError(f"{path} for {split} is a directory: give a file, or the directory as --dataset.")
    try:
        path.stat()
    except PermissionError as error:
        raise DataError(f"the file {path} for {split} cannot be reached: change its permissions.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"the file {path} for {split} is missing: check its path.") from error
    if not path.is_file():
        raise DataError(f"{path} for {split} is no file: check its path.")
    if "::" in (place := os.path.abspath(path)):  # what follows would be another file
        raise DataError(f"the path {place} has '::', which datasets cannot read: rename it.")
    if path.stat().st_size == 0:
        raise DataError(f"the split {split} is empty: {path} has no rows; add some, or give another file.")


def check_json(path: Path) -> None:
    """Raise a `DataError` for a JSON or JSON Lines file that is UTF-16, or would end the process in Arrow's parser.

    The parser fails at thousands of levels (it cannot store more than 64), and at `null` in the first row of a block.
    """
    depth = 0
    with path.open("rb") as file:
        start = file.read(4096)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"the file {path} is UTF-16: save it as UTF-8.")
        head = FIRST_NULL.match(start)
        null = 0 if head is None else 1 + head[0].count(b"\n")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if number == null or (depth == 0 and line.strip() == b"null"):
                raise DataError(f"the file {path} has null in line {number}, which is no row: leave it out.")
            rest = STRING.sub(b"", line)
            opened, closed = (rest.count(pair[:1]) + rest.count(pair[1:]) for pair in (b"[{", b"]}"))
            if depth + opened > DEEPEST_ROW:
                for bracket in BRACKET.findall(rest):
                    depth = max(0, depth + (1 if bracket in b"[{" else -1))
                    if depth > DEEPEST_ROW:
                        raise DataError(
                            f"the file {path} has lists or objects that are nested more than 64 deep: flatten them."
                        )
            else:
                depth = max(0, depth + opened - closed)


def check_columns(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """The columns of a CSV file.

    Raise a `DataError` if its first row has more fields than its header, a name is there twice, or a row has something
    in a last column without a name, as a table has it whose texts are not in quotes: pandas would silently take the
    first field of each row for its number, read one of the columns, or read wrong texts.

    Args:
        path: The file.
        settings: `delimiter` and `quoting`, as pandas takes them.
    """
    style = {"delimiter": settings.get("delimiter", ","), "quoting": settings.get("quoting", csv.QUOTE_MINIMAL)}
    way = "in quotes" if style["quoting"] != csv.QUOTE_NONE else "into a .jsonl file"
    remedy = f"put texts with {shown(style['delimiter'])} in them {way}, or name all columns"
    header: list[str] = []
    first: list[str] = []
    with (
        path.open(encoding="utf-8-sig", errors="replace", newline="") as file,
        _long_fields(),
        suppress(csv.Error, StopIteration),  # pandas says what is wrong
    ):
        rows = (row for row in csv.reader(file, **style) if any(map(str.strip, row)))
        header = next(rows)
        named = max((place for place, name in enumerate(header, start=1) if name.strip()), default=0)
        for number, row in enumerate(rows, start=1):
            first = first or row
            if named == len(header) or len(row) > len(header):
                break
            if spilled := [field for field in row[named:] if field.strip()]:
                raise DataError(
                    f"{path} has {shown(spilled[0])} in row {number}, in a column without a name: {remedy}."
                )
    if len(header) == 1 and (
        other := next((one for one in ",;\t" if one in header[0] and one != style["delimiter"]), None)
    ):
        raise DataError(
            f"{path} has one column, {shown(header[0])}, as if its fields were separated by {shown(other)}: save it "
            f"with {shown(style['delimiter'])} between them, or as .jsonl."
        )
    if twice := [name for place, name in enumerate(header) if name and name in header[:place]]:
        raise DataError(f"{path} has the column {shown(twice[0])} twice: rename one of them.")
    if len(first) > len(header):
        raise DataError(f"{path} has {len(first)} fields in its first row, and {len(header)} columns: {remedy}.")
    return [name for name in header if name]


@contextmanager
def _long_fields() -> Iterator[None]:
    """Inside, a field of a CSV file may be as long as pandas reads it."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _load(builder: str, path: Path, split: str, cache_dir: str | None, settings: dict[str, Any]) -> Dataset:
    named = glob.escape(str(path))  # datasets takes names for patterns, which match other files
    load = partial(
        datasets.load_dataset, builder, data_files={split: [named]}, split=split, cache_dir=cache_dir, **settings
    )
    if builder != "json":
        return load()
    try:
        return load(chunksize=PART)
    except Exception:
        if not PART < (size := path.stat().st_size) <= WHOLE:
            raise
    return load(chunksize=size)  # a field that the first part lacks is no error then


def _as_written(path: Path, rows: Dataset) -> Dataset:
    """The rows of a JSON file in which Arrow took all texts of a field for dates, with these texts where it can be."""
    names, texts = rows.column_names, []
    for field in rows.features.arrow_schema:
        if (kind := _with_texts(field.type)) == field.type:
            continue
        try:
            texts.append(Dataset.from_dict({field.name: _column_of(path, field.with_type(kind))}))
        except (ValueError, TypeError, AttributeError, OverflowError, pa.ArrowException):
            continue  # of another form: they stay dates
    others = [name for name in names if not any(name in one.column_names for one in texts)]
    kept = [rows.select_columns(others)] if others else []
    return concatenate_datasets([*kept, *texts], axis=1).select_columns(names) if texts else rows


def _with_texts(kind: pa.DataType) -> pa.DataType:
    """A type with texts in the place of times."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct([field.with_type(_with_texts(field.type)) for field in fields])
    return pa.list_(_with_texts(kind.value_type)) if pa.types.is_list(kind) else kind


def _column_of(path: Path, field: pa.Field) -> list[Any]:
    """A column of a JSON file, with this type."""
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if content.lstrip()[:1] == b"[":
        rows = json.loads(content)
        return [row.get(field.name) for row in rows]
    parse = ParseOptions(pa.schema([field]), newlines_in_values=True, unexpected_field_behavior="ignore")
    read = ReadOptions(use_threads=False, block_size=len(content) + 1)
    values: list[Any] = read_json(pa.BufferReader(content), read, parse)[field.name].to_pylist()
    return values


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
    written = Dataset.from_dict({column: values})  # add_column needs another column
    return concatenate_datasets([rows.remove_columns(column), written], axis=1).select_columns(rows.column_names)
