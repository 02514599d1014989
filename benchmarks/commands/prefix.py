"""`python -m benchmarks prefix`: what an epoch costs with a cache of the frozen prefix."""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from weightlora.files import write_json

from .options import add_option, positive

RESULTS = Path("benchmarks/results/prefix.json")


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "prefix",
        help="measure epochs with and without a cache of the frozen prefix",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_option(parser, "texts", type=positive, default=320, help="training examples")
    add_option(parser, "epochs", type=positive, default=10, help="epochs of each training")
    add_option(parser, "output", type=Path, default=RESULTS, help="where to write the figures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0."""
    import torch
    from rich.console import Console

    from weightlora.cli.quiet import quiet_libraries
    from weightlora.train.environment import machine, versions

    from ..studies.prefix import KEPT, kill_and_go_on, load_minilm, measure_epochs, render_prefix_markdown

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    load = partial(load_minilm, args.texts)
    try:
        with quiet_libraries(), tempfile.TemporaryDirectory() as directory:
            task = load()
            figures = measure_epochs(task, 3, args.epochs, Path(directory) / "epochs")
            steps = figures["steps"] // args.epochs
            killed = kill_and_go_on(load, 2, max(1, steps // 2), Path(directory) / "killed")
    finally:
        torch.set_num_threads(threads)
    study = {
        "format": 1,
        "study": "prefix",
        "settings": {
            "model": "MiniLM-L6",
            "texts": args.texts,
            "epochs": args.epochs,
            "batch_size": task.batch_size,
            "kept": list(KEPT),
            "first_block": 3,
            "blocks": 6,
        },
        "versions": versions(),
        "machine": machine(torch.device("cpu")) | {"threads": 1},
        "epochs": figures,
        "killed": killed,
    }
    write_json(args.output, study)
    Console(highlight=False).print(render_prefix_markdown(study))
    return 0
