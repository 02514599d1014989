"""Writing files so that nobody ever reads half of one, and reading JSON that may come from anybody."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError

from .errors import DataError
from .wording import shown

Place = str | os.PathLike[str]
LARGEST_JSON = 2**26  # bytes; a selection of 10,000 adapters needs 4 MB


def write(path: Place, writer: Callable[[Path], object]) -> Path:
    """Write a file whole or not at all.

    Args:
        path: The file. Its directory is made if it is missing.
        writer: Called with a path in the same directory, to which it writes. The result is moved to `path`.

    Returns:
        The path.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")  # after a crash, the next writer replaces it
    with _named(target):
        try:
            writer(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def is_of_writing(error: Exception) -> bool:
    """Whether an error is of writing a file. Tokenizers have no class for it; torch raises a `RuntimeError`."""
    return isinstance(error, OSError | SafetensorError) or type(error) is Exception


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in an error of the system that names none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def write_text(path: Place, text: str) -> Path:
    """Write a UTF-8 text file whole or not at all."""
    return write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Place, value: Any) -> Path:
    """Write a JSON file whole or not at all. NaN and infinity raise a `ValueError`: they are no JSON."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Place, remedy: str | None = None) -> Any:
    """The content of a JSON file of at most 64 MiB.

    Args:
        path: The file.
        remedy: The end of the error's sentence. None: the caller completes it.

    Raises:
        DataError: If it cannot be read or is not JSON. NaN, infinity, numbers beyond the largest float, and nesting
            beyond Python's limit are none.
    """
    source, end = Path(path), "" if remedy is None else f": {remedy}."
    try:
        if (size := source.stat().st_size) > LARGEST_JSON:
            raise DataError(f"{path} has {size} bytes, and {LARGEST_JSON} is the most that is read{end}")
        return _parse(source.read_text(encoding="utf-8"))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}){end}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not whole JSON ({error}){end}") from error


def append_lines(path: Place, entries: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON objects to a file, one per line."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _named(target), target.open("a", encoding="utf-8") as file:
        file.write("".join(f"{json.dumps(entry, allow_nan=False)}\n" for entry in entries))


def read_lines(path: Place) -> list[dict[str, Any]]:
    """The JSON objects of a file written by `append_lines`; a last line that was cut short is left out.

    Raises:
        DataError: If another line is not a JSON object.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): delete what is not text.") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            entries.append(parse_line(path, number, line))
        except DataError as error:
            if number < len(lines) or error.__cause__ is None:
                raise
            # It is not JSON, and no line break comes after it: the process died while it wrote.
    return entries


def parse_line(path: Place, number: int, line: str | bytes) -> dict[str, Any]:
    """The JSON object in a line of a file, which is named in the `DataError` if there is none."""
    try:
        entry = _parse(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number} is not JSON ({error}): delete that line.") from error
    if not isinstance(entry, dict):
        raise DataError(f"{path}, line {number} is not a JSON object: delete that line.")
    return entry


def sha256_of(path: Place) -> str:
    """The SHA-256 of a file, in hexadecimal digits. It may be larger than the memory."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def move_aside(path: Path) -> Path:
    """Rename a file to `NAME.aside`, or `NAME.aside-2` and so on where that is taken; returns the new path."""
    names = chain([f"{path.name}.aside"], (f"{path.name}.aside-{number}" for number in count(2)))
    return path.rename(next(free for name in names if not os.path.lexists(free := path.with_name(name))))


def resolved(place: Place) -> Path:
    """The absolute path without links.

    Raises:
        DataError: If links lead in a circle.
    """
    try:
        return Path(place).resolve()
    except (OSError, RuntimeError) as error:  # the latter before Python 3.13
        raise DataError(f"{shown(str(place))} cannot be followed ({error}): give another place.") from error


def check_writable(directory: Place) -> None:
    """Raise a `DataError` if the directory, or the nearest existing one above it, cannot be written to."""
    place = Path(directory)
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        if place.is_symlink():
            raise DataError(
                f"{directory} is a link to {os.readlink(place)}, which is not there: make that directory, or give "
                "another place."
            ) from None
    except (OSError, ValueError) as error:  # exists() raises it, or hides it, as the version of Python has it
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(str(directory))} cannot be used as a directory: {reason}.") from error
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise DataError(f"{directory} cannot be made: {there} is not a directory that you may write to.")


def _parse(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_number, parse_float=_read_float, parse_int=_read_int)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{shown(text)} is no finite number")


def _read_float(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse_number(text)  # 1e999


def _read_int(text: str) -> int:
    return int(text) if len(text) < 300 else _refuse_number(text)  # no float could hold it
