"""Read YAML that a stranger may have written: a mapping of plain values of limited size, or one sentence."""

import codecs
import csv
import os
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, DataError
from ..wording import shown

__all__ = ["check_columns", "check_file", "check_json", "check_name", "read_yaml"]

LARGEST = 2**20
"""Bytes of a file of settings."""

MOST, DEEPEST = 10_000, 20
"""Values in a file of settings, and how deep they are nested. YAML's aliases repeat a value many times."""


DEEPEST_ROW = 64
STRING, BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?'), re.compile(rb"[\[\]{}]")
FIRST_NULL = re.compile(b"(?:%s)?" % codecs.BOM_UTF8 + rb"\s*\[?\s*null\b")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only, and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", node.start_mark)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file. An empty file has an empty one.

    Args:
        path: The file.
        what: What it is called in errors.

    Raises:
        ConfigError: It cannot be read, is not YAML, has a key twice, is too large, or is not a mapping of names.
    """
    text = _text(path, what)
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{what} is not valid YAML: {' '.join(str(error).split())}.") from error
    return _checked({} if content is None else content, what)


def check_file(path: Path, split: str) -> None:
    """Raise a `DataError` if there is no file for a split at this path, or if datasets cannot read from there."""
    if os.path.isdir(path):
        raise DataError(f"{path} for {split} is a directory: give a file, or the directory as --dataset.")
    if not os.path.isfile(path):
        raise DataError(f"the file {path} for {split} is missing.")
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

    Raise a `DataError` if its first row has more fields than its header, or a name is there twice: pandas would
    silently take the first field of each row for its number, or read one of the columns.

    Args:
        path: The file.
        settings: `delimiter` and `quoting`, as pandas takes them.
    """
    style = {"delimiter": settings.get("delimiter", ","), "quoting": settings.get("quoting", csv.QUOTE_MINIMAL)}
    header: list[str] = []
    first: list[str] = []
    with (
        path.open(encoding="utf-8-sig", errors="replace", newline="") as file,
        suppress(csv.Error, StopIteration),  # pandas says what is wrong
    ):
        rows = (row for row in csv.reader(file, **style) if any(map(str.strip, row)))
        header = next(rows)
        first = next(rows)
    if len(header) == 1 and (
        other := next((one for one in ",;\t" if one in header[0] and one != style["delimiter"]), None)
    ):
        raise DataError(
            f"{path} has one column, {shown(header[0])}, as if its fields were separated by {shown(other)}: save it "
            f"with {shown(style['delimiter'])} between them, or as .jsonl."
        )
    if twice := [name for place, name in enumerate(header) if name in header[:place]]:
        raise DataError(f"{path} has the column {shown(twice[0])} twice: rename one of them.")
    if len(first) > len(header):
        raise DataError(
            f"{path} has {len(first)} fields in its first row, and {len(header)} columns: put texts with "
            f"{shown(style['delimiter'])} in them in quotes, or name all columns."
        )
    return [name for name in header if name]


def check_name(name: Any, what: str) -> str:
    """The name, if it can be a file's or a directory's and leads nowhere else.

    Raises:
        ConfigError: It is empty, too long, or has a character that a name in a path may not have.
    """
    if isinstance(name, str) and re.fullmatch(r"(?!\.)[^/\\\x00-\x1f\x7f]{1,200}", name):
        return name
    raise ConfigError(
        f"{what} {shown(name)} cannot be the name of a directory: use letters, digits, dashes and dots, and no dot at "
        "the beginning."
    )


def _text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{what} is larger than {LARGEST:,} bytes: it is not a file of settings.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} is not a text in UTF-8 ({error.reason}, byte {error.start}): save it as one."
        ) from error
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}.") from error


def _checked(content: Any, what: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError(f"{what} is not a mapping: write one `name: value` per line.")
    left = [(value, 1) for value in [*content, *content.values()]]
    count = 0
    while left:
        value, depth = left.pop()
        count += 1
        if count > MOST or depth > DEEPEST:
            raise ConfigError(
                f"{what} has more than {MOST:,} values, or lists that are nested more than {DEEPEST} deep: it is no "
                "file of settings."
            )
        if isinstance(value, dict):
            left += [(inner, depth + 1) for inner in [*value, *value.values()]]
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
        elif not isinstance(value, str | int | float | None):
            raise ConfigError(
                f"{what} has {shown(value)}, which is no text, number, list or mapping: put it in quotes."
            )
    return content
