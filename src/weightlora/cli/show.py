"""`weightlora show`: what a run chose, as a table, a picture, a page, JSON, or the snippet to paste."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import HelpFormatter

if TYPE_CHECKING:
    from ..report import RunReport

DESCRIPTION = """\
Show what a run chose. A run is the output directory of a training with weightlora: of `weightlora train`, `select`
or `quickstart`, of a Trainer, or of save_run. It may still be going on.

Without options: a table, and the picture of the choice as RUN.png in the current directory.
"""
EPILOG = """\
examples:
  weightlora show runs/first                        the table, and first.png here
  weightlora show runs/first --format axolotl       the snippet to paste, for that tool
  weightlora show runs/first --output page.html     one page with everything, which needs no network
  weightlora show runs/a runs/b --output page.html  the runs side by side
  weightlora show runs/first --output pictures      each picture as PNG and as SVG, in that directory
  weightlora show runs/first --json | jq '.runs[0].target_modules'

exit codes: 0 done; 2 something is wrong with the input, and nothing was written; 130 interrupted
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
    from .writing import plan_outputs, write_all

    _check_together(args)
    if args.format is not None:
        from ..selection import Selection

        print(Selection.load(_only(args.runs, "--format")).to(args.format), end="")
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

    rows = Summary(asdict(module) for module in run.modules)
    rows.text = f"{run.name}: {lead(run)}"
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        print(rows)
        return
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(rows)
    if bounded := sum(module.bounded for module in run.modules):
        bound = bound_in_words(run.selection.config)
        console.print(f"\n{bounded} with higher scores were kept out by {bound}.")
    console.print("\n".join(["", *map(_cost_line, run.costs)]), markup=False, soft_wrap=True)


def _cost_line(cost: Any) -> str:
    from ..report.costs import amount

    before, after = (amount(value, cost.unit) for value in (cost.before, cost.after))
    return f"{cost.name}: {before} before, {after} after" if before and after else f"{cost.name}: {before or after}"


def _draw_here(run: "RunReport", overwrite: bool) -> None:
    """Write the picture into the present directory, unless a file is in the way."""
    from ..errors import MissingPackageError
    from .writing import plan_outputs, write_all

    path = Path(f"{Path(run.name).name}.png")
    if path.exists() and not overwrite:
        print(f"{path} is there already and was left as it is: --overwrite draws it again.", file=sys.stderr)
        return
    try:
        write_all(plan_outputs([run], [path], overwrite))
    except MissingPackageError as error:
        print(f"there is no picture, because {error}", file=sys.stderr)
        return
    print(f"written: {path}", file=sys.stderr)


def _check_together(args: argparse.Namespace) -> None:
    from ..errors import ConfigError

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
    from ..errors import ConfigError

    if len(runs) > 1:
        raise ConfigError(f"{what} is of one run, and {len(runs)} are given: give one.")
    return runs[0]
