"""`python -m benchmarks growth`: what a step, the disconnect and the load cost by number of adapters."""

import argparse
from pathlib import Path
from typing import Any

from weightlora.files import write_json

from .options import add_option, integers, positive
from .progress import progress_bar

RESULTS = Path("benchmarks/results/growth.json")


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "growth",
        help="measure a step, the disconnect and the load by number of adapters",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_option(parser, "counts", type=integers(2), default="36,210,500,1000,2000", help="numbers of adapters")
    add_option(parser, "rounds", type=positive, default=10, help="timed steps of each variant")
    add_option(parser, "output", type=Path, default=RESULTS, help="where to write the figures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0."""
    import torch
    from rich.console import Console

    from weightlora.train.environment import machine, versions

    from ..studies.growth import Growth, measure_growth, to_rows

    figures: list[Growth] = []
    with progress_bar(len(args.counts)) as advance:
        for n in args.counts:
            figures.append(measure_growth(n, args.rounds))
            advance()
    study = {
        "format": 1,
        "study": "growth",
        "settings": {"rounds": args.rounds},
        "versions": versions(),
        "machine": machine(torch.device("cpu")) | {"threads": 1},
        "cases": to_rows(figures),
    }
    write_json(args.output, study)
    console = Console(highlight=False)
    for table in tables(figures):
        console.print(table)
        console.print()
    console.print("Seconds are processor time on one thread. No load is faster than get_peft_model on K modules.")
    return 0


def tables(figures: Any) -> list[Any]:
    """Two tables: a step by number of adapters, and each disconnect."""
    steps = _table(
        "n", "LoRA step, ms", "credit, x step", "x optimizer", "ms an adapter", "gates, x step", "ms an adapter"
    )
    choices = _table("n", "rule", "K", "disconnect, s", "load, s", "get_peft_model (n), s")
    for one in figures:
        credit, gates = "credit", "stoiht"
        steps.add_row(
            f"{one.n:,}",
            f"{one.step * 1000:.1f}",
            f"{one.ratios[credit]:.2f}",
            f"{one.optimizer_ratios[credit]:.2f}",
            f"{one.adapter_milliseconds[credit]:.3f}",
            f"{one.ratios[gates]:.2f}",
            f"{one.adapter_milliseconds[gates]:.3f}",
        )
        for choice in one.choices:
            choices.add_row(
                f"{one.n:,}",
                choice.rule,
                f"{choice.kept:,}",
                f"{choice.disconnect:.2f}",
                f"{choice.load:.2f}",
                f"{one.adapt:.2f}",
            )
    return [steps, choices]


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right")
    return table
