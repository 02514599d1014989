"""`python -m benchmarks golden`: repeat the golden runs, and print every figure that differs from the stored one."""

import argparse
from pathlib import Path

from .options import add_option, names, positive

OUTPUT = Path("runs/golden")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "golden", help="repeat the golden runs, and print what differs from the stored figures"
    )
    add_option(parser, "cases", type=names, help="only these cases, separated by commas")
    add_option(parser, "jobs", type=positive, help="number of runs at the same time (default: one per core)")
    add_option(parser, "output_dir", type=Path, default=OUTPUT, help=f"where the results are written ({OUTPUT})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 1 if a figure differs or a run failed, else 0."""
    from weightlora.compare.runner import THREAD_VARIABLES, usable_cores

    from ..golden import differences, plan_golden
    from .progress import execute_with_progress

    runs = plan_golden(args.output_dir, args.cases)
    for golden in runs.values():
        golden.output.unlink(missing_ok=True)
    status = execute_with_progress(
        list(runs.values()), args.jobs or usable_cores(), dict.fromkeys(THREAD_VARIABLES, "1")
    )
    for name, golden in runs.items():
        if (result := golden.result()) is not None and (found := differences(name, result)):
            status = 1
            print(f"{name} differs:", *found, sep="\n  ")
    if not status:
        print(f"All {len(runs)} golden runs have the stored figures, to the last digit.")
    return status
