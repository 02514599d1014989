"""Damage to the files of a checkpoint, for the tests that resume from what is left."""

import shutil
from pathlib import Path


def flip(path: Path, where: float = 0.5, bit: int = 0) -> None:
    """Flip one bit, at this share of the file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1 << bit
    path.write_bytes(content)


def zero(path: Path, share: float = 0.5) -> None:
    """The end of the file is zeros, as after a power failure."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)].ljust(len(content), b"\0"))


def of_another(path: Path, neighbour: str = "checkpoint-2") -> None:
    """The file of a neighbouring checkpoint."""
    shutil.copy(path.parent.with_name(neighbour) / path.name, path)
