"""`weightlora show`: what a run chose, as a table, a picture, a page, JSON, or the snippet to paste."""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, MissingPackageError
from ..files import check_writable, write
from . import HelpFormatter

if TYPE_CHECKING:
    from ..report import RunReport

DESCRIPTION = """\
Shows what a run chose. A run is the output directory of a training with weightlora: of `weightlora train`, `select`
or `quickstart`, of a Trainer, or of save_run. The run may still be in progress.

Without options: a table, and the picture of the choice as RUN.png in the current directory.
"""
EPILOG = """\
examples:
  weightlora show runs/first                        the table, and first.png here
  weightlora show runs/first --format axolotl       the snippet to paste, for that tool
  weightlora show runs/first --output page.html     one page with everything, which needs no network
  weightlora show runs/a runs/b --output page.html  the runs side by side
  weightlora show runs/first --output pictures      each picture as PNG and as SVG, in that directory
  weightlora show runs/first --json | jq '.runs[0].module_names'

exit codes: 0 done; 1 an unexpected error; 2 something in the input is wrong (one sentence says what); 130 interrupted
"""
KINDS = (".html", ".json", ".png", ".svg")


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser."""
    parser = subparsers.add_parser(
        "show",
        help="show what a run chose: table, picture, page, or the snippet to paste",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="directory of a run; if you give several, they are compared")
    add("--format", metavar="NAME", help="print the snippet to paste into a tool, such as peft, trl or axolotl")
    add(
        "--output",
        action="append",
        type=Path,
        metavar="PATH",
        help="write PATH: a page (.html), the data (.json), the picture of the choice (.png, .svg), or a directory "
        "for all pictures; you can give it several times",
    )
    add("--overwrite", action="store_true", help="replace files that already exist")
    add("--json", action="store_true", help="print the data as one JSON object on stdout, everything else on stderr")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        WeightLoraError: Something is wrong with the input. Nothing was written then.
    """
    from ..report import as_data, read_runs

    _check_together(args)
    if args.format is not None:
        from ..selection import Selection
        from ..selection.formats import notes_beside

        selection = Selection.load(_only(args.runs, "--format"))
        print(selection.to(args.format), end="")
        for note in notes_beside(selection, args.format):
            print(note, file=sys.stderr)
        return 0
    runs = read_runs(args.runs)
    if args.output:
        written = write_all(plan_outputs(runs, args.output, args.overwrite))
        print(f"written: {', '.join(map(str, written))}", file=sys.stderr)
    if args.json:
        print(json.dumps(as_data(runs), allow_nan=False))
    elif not args.output:
        for one in runs:
            show_table(one)
        if len(runs) == 1:
            _draw_here(runs[0], args.overwrite)
    return 0


def show_table(run: "RunReport") -> None:
    """Print what the run chose, and a row for each module."""
    from dataclasses import asdict

    from ..drawing.picture import bound_in_words
    from ..report.sections import lead
    from ..summary import Summary
    from ..wording import counted

    rows = Summary(map(asdict, run.modules), f"{run.name}: {lead(run)}")
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        print(rows)
        return
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(rows)
    if bounded := sum(module.bounded for module in run.modules):
        bound = bound_in_words(run.selection.config)
        console.print(f"\n{counted(bounded, 'module')} with a higher score did not fit into {bound}.")
    console.print("\n".join(["", *map(_cost_line, run.costs)]), markup=False, soft_wrap=True)


def _cost_line(cost: Any) -> str:
    from ..report.costs import amount

    before, after = (amount(value, cost.unit) for value in (cost.before, cost.after))
    if before and after:
        return f"{cost.name}: {before} before, {after} after"
    return f"{cost.name}: {before} before" if before else f"{cost.name}: {after} after the choice"


def _draw_here(run: "RunReport", overwrite: bool) -> None:
    """Write the picture into the present directory, unless a file is in the way."""
    path = Path(f"{Path(run.name).name}.png")
    if os.path.lexists(path) and not overwrite:
        print(f"{path} is there already and was left as it is: --overwrite draws it again.", file=sys.stderr)
        return
    try:
        write_all(plan_outputs([run], [path], overwrite))
    except MissingPackageError as error:
        print(f"there is no picture, because {error}", file=sys.stderr)
        return
    print(f"written: {path}", file=sys.stderr)


def _check_together(args: argparse.Namespace) -> None:
    if args.format is not None and (args.json or args.output):
        other = "--json" if args.json else "--output"
        raise ConfigError(f"--format prints the snippet to paste and nothing else: leave out {other}, or ask twice.")
    for path in args.output or ():
        if path.suffix and path.suffix not in KINDS:
            raise ConfigError(
                f"--output {path} ends in {path.suffix!r}: give a name that ends in {', '.join(KINDS)}, or a "
                "directory without a dot."
            )
        if path.suffix in (".png", ".svg"):
            _only(args.runs, f"--output {path}")


def _only(runs: list[Path], what: str) -> Path:
    if len(runs) > 1:
        raise ConfigError(f"{what} is of one run, and {len(runs)} are given: give one.")
    return runs[0]


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
    """Write the files, each whole or not at all; returns their paths.

    Raises:
        DataError: A file cannot be written.
    """
    for path, content in contents.items():
        try:
            write(path, lambda partial, content=content: partial.write_bytes(content))  # type: ignore[misc]
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{path} cannot be written ({reason}): make room, or give another --output.") from error
    return list(contents)


def _make(runs: "Sequence[RunReport]", path: Path) -> dict[Path, bytes]:
    from ..drawing.figures import encode
    from ..report import as_data, render_page
    from ..report.pictures import draw_pictures, figures_of

    if path.suffix == ".html":
        return {path: render_page(runs).encode(errors="replace")}  # a name of a file may hold any bytes
    if path.suffix == ".json":
        return {path: f"{json.dumps(as_data(runs), allow_nan=False)}\n".encode()}
    if path.suffix:
        return {path: encode(figures_of(runs[0])["selection"](), path.suffix[1:])}
    contents: dict[Path, bytes] = {}
    folders: set[Path] = set()
    for run in runs:
        of_run = Path(run.name)  # the whole path where two runs have one name
        name = "-".join(part for part in of_run.parts if part != of_run.anchor)
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))  # a-b/c after a/b/c
        folder = path if len(runs) == 1 else next(one for each in names if (one := path / each) not in folders)
        folders.add(folder)
        for kind in ("png", "svg"):
            contents |= {folder / f"{name}.{kind}": data for name, data in draw_pictures(run, kind).items()}
    return contents


def _check_place(path: Path, overwrite: bool) -> None:
    if path.suffix and path.is_dir():
        raise DataError(f"{path} is a directory: give the name of a file.")
    if not path.suffix and path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file: give the name of a directory, or of a file that ends in .html or .png.")
    if path.suffix and os.path.lexists(path) and not overwrite:
        raise DataError(f"{path} is there already: give another name, or --overwrite to replace it.")
    check_writable(path.parent if path.suffix else path)
