"""`python -m benchmarks draws`: how much the probe's choice depends on the random A and on the batches."""

import argparse
from pathlib import Path
from typing import Any

from weightlora.files import write_json

from .options import ROOT, add_option, integers, names

TASKS = "smollm2-sentiment-float32,rotten-tomatoes-all"


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "draws",
        help="compare what the probe chooses with other factors A and other batches",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_option(parser, "tasks", type=names, default=TASKS, help="tasks, separated by commas")
    add_option(parser, "root", type=Path, default=ROOT, help="folder of the experiments")
    add_option(parser, "seeds", type=integers(0), default="1000,1001,1002", help="of the factors and the batches")
    add_option(parser, "rows", type=integers(1), default="1,16,64,256", help="rows of all draws of an A together")
    add_option(parser, "batch_sizes", type=integers(1), help="examples in a batch (default: the task's)")
    add_option(parser, "batches", type=integers(1), default="4", help="batches of a probe")
    add_option(
        parser,
        "shared",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="probe with one A at all seeds, too",
    )
    add_option(parser, "output", type=Path, default=Path("benchmarks/results/draws.json"), help="where to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        WeightLoraError: A task is unknown, its data or model is missing, or there is only one seed.
    """
    import tempfile
    from dataclasses import asdict

    import torch
    from rich.console import Console
    from rich.table import Table

    from weightlora.cli.quiet import quiet_libraries
    from weightlora.train.environment import machine, versions

    from ..experiments import resolve
    from ..studies.draws import study_draws

    table = Table("task", "A", "examples", "batches", "overlap", box=None, pad_edge=False, header_style="bold")
    cases = []
    for task in args.tasks:
        experiment = resolve(args.root, task, "lora")
        sizes = args.batch_sizes or [experiment["batch_size"]]
        with quiet_libraries(), tempfile.TemporaryDirectory() as directory:
            found = study_draws(experiment, args.seeds, args.rows, sizes, args.batches, directory, args.shared)
        for one in found:
            drawn = "drawn once" if one.rows == 1 else f"{one.rows} rows"
            how = "the same for all" if one.shared else drawn
            table.add_row(task, how, str(one.batch_size), str(one.batches), f"{one.overlap:.2f}")
            cases.append({"task": task, **asdict(one), "overlap": one.overlap})
    settings = {"seeds": args.seeds}
    record = {"versions": versions(), "machine": machine(torch.device("cpu"))}
    write_json(args.output, {"format": 3, "study": "draws", "settings": settings, **record, "cases": cases})
    Console(highlight=False).print(table)
    return 0
