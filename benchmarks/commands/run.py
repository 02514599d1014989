"""`python -m benchmarks run`: run the experiments that have no result yet, or a sweep over recipes."""

import argparse
from pathlib import Path

from .options import ROOT, add_experiments, add_option, add_running, positive, setting


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("run", help="run the experiments that have no result yet")
    add_experiments(parser)
    add_running(parser)
    add_option(parser, "seeds", type=positive, help="number of seeds (default: as each experiment says)")
    sweep = parser.add_argument_group("a sweep over recipes")
    add_option(sweep, "sweep", type=Path, help="a file that lists recipes, methods and seeds")
    sweep.add_argument("--with", dest="overrides", type=setting, action="append", metavar="KEY=VALUE", default=[])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 1 if a run failed, else 0."""
    from weightlora.compare.runner import usable_cores

    from ..experiments import plan
    from .progress import execute_with_progress

    if args.sweep is None:
        runs = plan(args.root or ROOT, args.tasks, args.methods, args.seeds)
        return execute_with_progress(runs, args.jobs or usable_cores())

    import torch

    from ..sweep import plan_sweep

    root = args.root or Path("runs") / args.sweep.resolve().parent.name
    runs = plan_sweep(args.sweep, root, dict(args.overrides), args.tasks, args.methods, args.seeds)
    return execute_with_progress(runs, args.jobs or (1 if torch.cuda.is_available() else usable_cores()))
