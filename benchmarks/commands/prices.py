"""`python -m benchmarks prices`: what a step of a task's model costs, the same for all runs that choose by it."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weightlora.files import write_json

from .options import ROOT, add_option

TASK = "rotten-tomatoes-all"


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "prices",
        help="measure and store the prices of step time by which `within` methods choose",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_option(parser, "task", default=TASK, help="the task whose model and batches are measured")
    add_option(parser, "root", type=Path, default=ROOT, help="folder of the experiments")
    add_option(parser, "output", type=Path, default=Path("benchmarks/results/prices.json"), help="where to write them")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        WeightLoraError: The task is unknown, or its data or model is missing.
    """
    import tempfile

    from weightlora.cli.quiet import quiet_libraries
    from weightlora.train.environment import machine, versions
    from weightlora.train.pricing import price

    from ..experiments import resolve
    from ..methods import ALL_METHODS
    from ..workloads import job_for

    # The budget has room for all; what is chosen here does not count.
    options = {"keep": None, "keep_step_time": 0.99}
    experiment = resolve(args.root, args.task, "lora") | {"method": "weightlora", "options": options}
    with quiet_libraries(), tempfile.TemporaryDirectory() as directory:
        job = job_for(experiment, 0, ALL_METHODS, directory)
        costs, names = price(job)
    device = job.recipe.training.device
    write_json(
        args.output,
        {
            "format": 1,
            "task": args.task,
            "names": names,
            "costs": asdict(costs),
            "versions": versions(),
            "machine": machine(device),
        },
    )
    print(f"{args.output}: a step with all {len(names)} adapters takes {costs.whole:.3g} s")
    return 0
