"""`python -m benchmarks summarize`: write tables and pictures of the stored results, and print the tables."""

import argparse
import json
import sys
from pathlib import Path

from .options import ROOT, add_experiments, add_option


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("summarize", help="write tables and pictures of the results")
    add_experiments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else; write nothing")
    add_option(parser, "output_dir", type=Path, help="where tables and pictures are written (default: the root)")
    parser.set_defaults(run=summarize)


def summarize(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Files are written for all tasks. `--tasks` limits only what is printed.
    """
    from rich.console import Console

    from ..pages.layout import write_layout
    from ..pages.side import write_pages
    from ..summary import extend_, read_summary, write_summary
    from ..tables import print_tables

    root = args.root or ROOT
    results, summary, remarks = read_summary(root, args.tasks)
    if args.json:
        extend_(summary, results)
        print(json.dumps(summary))
    else:
        out = args.output_dir or root
        write_summary(root, out)
        write_pages(root, out)
        write_layout(root, out)
        print_tables(summary, Console(width=None if sys.stdout.isatty() else 160))
    for remark in remarks:
        print(remark, file=sys.stderr)
    return 0
