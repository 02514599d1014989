"""`python -m benchmarks train`: `weightlora train`, with the methods that exist only to be compared."""

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command. Its arguments are the arguments of `weightlora train`."""
    parser = subparsers.add_parser("train", help="weightlora train, with every method", add_help=False)
    parser.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        WeightLoraError: Something is wrong with the input.
    """
    from weightlora.cli import train
    from weightlora.train.methods import METHODS

    from ..methods import peft

    return train.run(args, {**METHODS, **peft.METHODS})
