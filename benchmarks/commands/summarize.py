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
    from ..summary import read_extended, read_summary, write_summary
    from ..tables import print_tables

    root = args.root or ROOT
    summary, remarks = (read_extended if args.json else read_summary)(root, args.tasks)
    if args.json:
        print(json.dumps(summary))
    else:
        write_summary(root, args.output_dir or root)
        write_pages(root, args.output_dir or root)
        write_layout(root, args.output_dir or root)
        print_tables(summary, Console(width=None if sys.stdout.isatty() else 160))
    for remark in remarks:
        print(remark, file=sys.stderr)
    return 0
