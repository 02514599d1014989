"""A checkpoint is one thing: a list of its files with their sizes and checksums, written last and checked first."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import DataError, StateError
from .files import read_json, sha256_of, write_json

MANIFEST = "weightlora_manifest.json"
MANIFEST_FORMAT = 1
# What a Trainer loads wherever it finds it. Such a file is part of the checkpoint, or it must not be there.
LOADED = re.compile(r"(adapter_model|model|pytorch_model|optimizer|scheduler|scaler|rng_state\w*)\.\w+")
FILES = {".bin", ".json", ".pt", ".pth", ".safetensors"}
SENTINEL = "checkpoint-is-incomplete.txt"
"""Transformers' `enable_jit_checkpoint` puts it beside the files while it writes them, and then takes it away."""


@dataclass(frozen=True)
class Manifest:
    """The files of a checkpoint.

    Attributes:
        step: Optimizer steps of the training when it was written.
        files: Size in bytes and SHA-256 of each file, by its path in the checkpoint.
    """

    step: int
    files: dict[str, tuple[int, str]]

    @property
    def has_optimizer(self) -> bool:
        """Whether a training can go on from the checkpoint as if it had not stopped (not with `save_only_model`)."""
        return any("optim" in name for name in self.files)


def write_manifest(directory: str | os.PathLike[str], step: int) -> Path:
    """List the files of a checkpoint, with their sizes and checksums, in `weightlora_manifest.json`.

    Call it when all other files are written. Model cards (`*.md`) and hidden files are left out, because resuming does
    not read them.

    Args:
        directory: The checkpoint.
        step: Optimizer steps of the training so far.

    Example:
        ```python
        from weightlora.manifest import write_manifest

        write_manifest("checkpoint-100", step=100)
        ```
    """
    folder = Path(directory)
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in _names(folder)
    }
    return write_json(folder / MANIFEST, {"format": MANIFEST_FORMAT, "step": int(step), "files": files})


def remove_manifest(directory: str | os.PathLike[str]) -> None:
    """Make a checkpoint that is about to be overwritten an incomplete one, and drop what a Trainer would load."""
    folder = Path(directory)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):  # at no moment it looks whole
        if path.is_dir() and not path.is_symlink():
            # The suffix of a file is damage: none could be written there. Each adapter of another name has a folder.
            if path.suffix in FILES or (path / "adapter_config.json").is_file():
                shutil.rmtree(path)
        elif path.name == MANIFEST or LOADED.fullmatch(path.name):
            path.unlink()


def check_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """The manifest of a checkpoint whose files are all there, and are those that were written.

    Raises:
        StateError: If the manifest is missing or damaged, if a file is missing, or has other content, or if there is
            one that a Trainer would load and that the manifest does not list.
    """
    folder = Path(directory)
    path = folder / MANIFEST
    if not path.is_file():
        raise StateError(
            f"{path} is missing, so this checkpoint was cut short while it was written, or is of an earlier version: "
            "resume from another one, or call weightlora.manifest.write_manifest(directory, step) to take it as it is."
        )
    try:
        manifest = _parse(read_json(path))
        for name, (size, checksum) in manifest.files.items():
            _check_file(folder / name, size, checksum)
        names = _names(folder)
    except (DataError, OSError) as error:
        raise StateError(f"{error}: resume from an earlier checkpoint.") from error
    added = [name for name in names if name not in manifest.files and LOADED.fullmatch(PurePosixPath(name).name)]
    if added:
        raise StateError(
            f"{folder / added[0]} is not in {MANIFEST}, so it was added later, and would be loaded: move it away."
        )
    return manifest


def _parse(content: Any) -> Manifest:
    try:
        if content["format"] != MANIFEST_FORMAT:
            raise DataError(f"{MANIFEST} has format {content['format']!r}, and this version reads {MANIFEST_FORMAT}")
        files = {name: (entry["size"], entry["sha256"]) for name, entry in content["files"].items()}
        step = content["step"]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{MANIFEST} is not a list of files ({type(error).__name__}: {error})") from error
    if type(step) is not int or not 0 <= step < 2**63 or not files:
        raise DataError(f"{MANIFEST} has step {step!r} and {len(files)} files, and must have a step and files")
    for name in files:
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise DataError(f"{MANIFEST} lists {name!r}, which is not a file of the checkpoint")
    return Manifest(step, files)


def _check_file(path: Path, size: Any, checksum: Any) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing")
    if path.stat().st_size != size:
        raise DataError(f"{path} has {path.stat().st_size} bytes, and had {size} when it was written")
    if sha256_of(path) != checksum:
        raise DataError(f"{path} was changed after it was written (its checksum differs)")


def _names(folder: Path) -> list[str]:
    """The files that resuming may need, as paths in the checkpoint, sorted."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    needed = [p for p in paths if p.suffix != ".md" and not any(part.startswith(".") for part in p.parts)]
    return sorted(path.as_posix() for path in needed if path.as_posix() not in (MANIFEST, SENTINEL))
