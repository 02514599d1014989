"""Hidden states of examples on disk: append-only, bounded in bytes, and with a checksum for each example."""

import json
import warnings
import zlib
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from ..files import append_lines, read_json, write_json
from ..tensors import DTYPES, dtype_name
from .rows import Rows

IDENTITY, INDEX, DATA = "identity.json", "index.jsonl", "states.bin"
FORMS = {**DTYPES, "float64": torch.float64}


class Entry(NamedTuple):
    """Where the hidden states of one example are.

    Attributes:
        folder: Of the process that has written them.
        offset: First byte in the file.
        tokens: Rows, one for each token.
        width: Numbers in a row.
        dtype: A key of `FORMS`.
        crc: CRC-32 of the bytes.
    """

    folder: Path
    offset: int
    tokens: int
    width: int
    dtype: str
    crc: int

    @property
    def nbytes(self) -> int:
        return self.tokens * self.width * FORMS[self.dtype].itemsize


class Store:
    """The hidden states of examples, by key. Each process writes files of its own, and reads those of all.

    Args:
        directory: Made if it is missing. Every process has a folder in it.
        identity: What the hidden states depend on. It is kept beside them.
        room: The most bytes of hidden states that this process adds to what is there.
        process: The number of this process.

    Attributes:
        full: Whether something was not kept because of `room`, or because it could not be written.

    Raises:
        DataError: The directory has hidden states of another identity.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any], room: int, process: int = 0) -> None:
        check_identity(directory, identity)
        self.directory, self.full = directory, False
        self._own = directory / f"process-{process}"
        self._entries: dict[bytes, Entry] = {}
        self._read: dict[Path, int] = {}  # bytes of each index that were read
        self._files: dict[Path, FileIO] = {}
        self._told = False
        write_json(self._own / IDENTITY, dict(identity))
        _drop_cut_line(self._own / INDEX)
        (self._own / DATA).touch()
        self._writer = (self._own / DATA).open("r+b", buffering=0)
        self._take_in(self._own)
        self._end = max((entry.offset + entry.nbytes for entry in self._entries.values()), default=0)
        self._limit = self._end + room
        self.refresh()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @property
    def nbytes(self) -> int:
        """Bytes of hidden states that this process has written."""
        return self._end

    def refresh(self) -> None:
        """Take in what the other processes have written since the last call."""
        for folder in sorted(self.directory.glob("process-*")):
            if folder != self._own:
                self._take_in(folder)

    def read(self, rows: Rows) -> Tensor | None:
        """The hidden states of a batch, with zeros at its padding.

        None if some examples are not there, or damaged. A damaged example is forgotten.
        """
        if not all(key in self for key in rows.keys):
            self.refresh()  # another process may have met it
        if not all(key in self for key in rows.keys):
            return None
        first = self._entries[rows.keys[0]]
        states = torch.zeros(len(rows.keys), rows.length, first.width, dtype=FORMS[first.dtype], device="cpu")
        for row, (key, end) in enumerate(zip(rows.keys, rows.ends, strict=True)):
            entry = self._entries[key]
            if (entry.tokens, entry.width, entry.dtype) != (end, first.width, first.dtype):
                return None
            if not self._read_into(bits_of(states[row, :end]), entry):
                del self._entries[key]
                self._tell(entry.folder / DATA)
                return None
        return states

    def _read_into(self, target: memoryview, entry: Entry) -> bool:
        """Read the bytes of an example; returns whether they are whole."""
        if entry.folder not in self._files:
            self._files[entry.folder] = (entry.folder / DATA).open("rb", buffering=0)
        file = self._files[entry.folder]
        file.seek(entry.offset)
        return target.nbytes == entry.nbytes == file.readinto(target) and zlib.crc32(target) == entry.crc

    def add(self, states: Mapping[bytes, Tensor]) -> None:
        """Append the hidden states of examples, until there is no room.

        Args:
            states: Key -> CPU tensor of shape `(tokens, width)`.
        """
        lines = []
        try:
            for key, tensor in states.items():
                bits, (tokens, width) = bits_of(tensor.contiguous()), tensor.shape
                if self._end + bits.nbytes > self._limit:
                    self.full = True
                    break
                self._writer.seek(self._end)
                _write_all(self._writer, bits)
                entry = Entry(self._own, self._end, tokens, width, dtype_name(tensor.dtype), zlib.crc32(bits))
                self._entries[key] = entry
                self._end += bits.nbytes
                lines.append({"key": key.hex()} | {name: getattr(entry, name) for name in Entry._fields[1:]})
            append_lines(self._own / INDEX, lines)  # after the data: a line never speaks of bytes that are not there
        except OSError as error:
            self.full = True
            warnings.warn(f"{self._own} takes no more hidden states ({error}).", stacklevel=2)

    def close(self) -> None:
        """Close the files."""
        for file in (self._writer, *self._files.values()):
            file.close()
        self._files = {}

    def _take_in(self, folder: Path) -> None:
        """Read the whole lines that the index in a folder has more than at the last call."""
        index, start = folder / INDEX, self._read.get(folder, 0)
        if not index.is_file() or index.stat().st_size <= start:
            return
        with index.open("rb") as file:
            file.seek(start)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read[folder] = start + len(text)
        for line in text.splitlines():
            if (found := _parse(folder, line)) is None:
                self._tell(index)
            else:
                self._entries[found[0]] = found[1]

    def _tell(self, place: Path) -> None:
        if not self._told:
            self._told = True
            warnings.warn(f"{place} is damaged: what is not whole is computed again.", stacklevel=2)


def bits_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor. They are its memory, not a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def check_identity(directory: Path, identity: Mapping[str, Any]) -> None:
    """Check that the hidden states in a directory, if there are any, are those of one identity.

    Raises:
        DataError: They are of another one, or it cannot be read.
    """
    for path in sorted(directory.glob(f"process-*/{IDENTITY}")):
        found = read_json(path, "give an empty directory, or delete this one")
        if found != identity:
            found = found if isinstance(found, dict) else {}
            names = [name for name in identity if found.get(name) != identity[name]] or ["fields"]
            raise DataError(
                f"{directory} has hidden states of another model (its {' and '.join(names)} differ): give an empty "
                "directory, or delete this one."
            )


def _parse(folder: Path, line: bytes) -> tuple[bytes, Entry] | None:
    """Key and entry of a line of an index; None if it is damaged."""
    try:
        fields = json.loads(line)
        key = bytes.fromhex(fields.pop("key"))
        entry = Entry(folder, **fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    numbers = (entry.offset, entry.tokens, entry.width, entry.crc)
    whole = all(isinstance(number, int) and number >= 0 for number in numbers)
    return (key, entry) if whole and entry.dtype in FORMS else None


def _drop_cut_line(index: Path) -> None:
    """Cut off the end of a line that a killed process left behind."""
    if index.is_file():
        with index.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _write_all(file: Any, bits: memoryview) -> None:
    written = 0
    while written < bits.nbytes:
        written += file.write(bits[written:])
