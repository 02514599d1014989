"""Writes what `weightlora show` makes: everything is made first, then all files are written, or none."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from ..files import check_writable, write

if TYPE_CHECKING:
    from ..report import RunReport

__all__ = ["plan_outputs", "write_all"]


def plan_outputs(runs: "Sequence[RunReport]", outputs: Sequence[Path], overwrite: bool) -> dict[Path, bytes]:
    """Make the content of every file, after a check of the places.

    Args:
        runs: One run or several.
        outputs: Paths as `--output` takes them; the suffix says what is written.
        overwrite: Whether files may be replaced.

    Returns:
        Path -> content.

    Raises:
        DataError: If a file is there already and `overwrite` is off, or a place cannot be written to.
    """
    for path in outputs:
        _check_place(path, overwrite)
    contents: dict[Path, bytes] = {}
    for path in outputs:
        contents |= _make(runs, path)
    for path in contents:
        _check_place(path, overwrite)
    return contents


def write_all(contents: dict[Path, bytes]) -> list[Path]:
    """Write the files. If one cannot be written, those that are new are taken away again.

    Raises:
        DataError: If there is no room on the disk, or another reason.
    """
    new = [path for path in contents if not path.exists()]
    directories = [path.parent for path in contents if not path.parent.exists()]
    for path, content in contents.items():
        try:
            write(path, lambda partial, content=content: partial.write_bytes(content))  # type: ignore[misc]
        except OSError as error:
            for made in new:
                made.unlink(missing_ok=True)
            for made in directories:
                if made.is_dir() and not any(made.iterdir()):
                    made.rmdir()
            raise DataError(
                f"{path} cannot be written ({error.strerror or error}): make room, or give another --output."
            ) from error
    return list(contents)


def _make(runs: "Sequence[RunReport]", path: Path) -> dict[Path, bytes]:
    from ..report import as_data, render_page
    from ..report.pictures import draw_pictures

    if path.suffix == ".html":
        return {path: render_page(runs).encode()}
    if path.suffix == ".json":
        return {path: f"{json.dumps(as_data(runs), allow_nan=False)}\n".encode()}
    if path.suffix:
        return {path: draw_pictures(runs[0], path.suffix[1:], ("selection",))["selection"]}
    contents: dict[Path, bytes] = {}
    for run in runs:
        of_run = Path(run.name)  # the whole path where two runs have one name
        folder = path if len(runs) == 1 else path / "-".join(part for part in of_run.parts if part != of_run.anchor)
        for kind in ("png", "svg"):
            contents |= {folder / f"{name}.{kind}": data for name, data in draw_pictures(run, kind).items()}
    return contents


def _check_place(path: Path, overwrite: bool) -> None:
    if path.suffix and path.is_dir():
        raise DataError(f"{path} is a directory: give the name of a file.")
    if not path.suffix and path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file: give the name of a directory, or of a file that ends in .html or .png.")
    if path.suffix and path.exists() and not overwrite:
        raise DataError(f"{path} is there already: give another name, or --overwrite to replace it.")
    check_writable(path.parent if path.suffix else path)
