"""Options that several commands share, and the types of their values."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weightlora.cli import spellings

ROOT = Path("benchmarks/quality")


def add_option(parser: Any, name: str, **settings: Any) -> None:
    """Add `--some_name`. The spelling with dashes, `--some-name`, is accepted too."""
    parser.add_argument(*spellings(name), **settings)


def add_experiments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which experiments a command is about."""
    add_option(parser, "root", type=Path, help=f"folder of the experiments (default: {ROOT})")
    add_option(parser, "tasks", type=names, help="only these tasks, separated by commas")


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that run experiments."""
    add_option(parser, "methods", type=names, help="only these methods, separated by commas")
    add_option(parser, "jobs", type=positive, help="number of runs at the same time (default: one per core)")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def rates(text: str) -> list[float]:
    """Numbers separated by commas."""
    return [float(value) for value in names(text)]


def setting(text: str) -> tuple[str, str]:
    """`KEY=VALUE` as a pair."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value


def number(text: str) -> int | float:
    """A count, or a fraction if there is a decimal point."""
    return float(text) if "." in text else int(text)


def integers(least: int) -> Callable[[str], list[int]]:
    """The type of a list of whole numbers of at least `least`, separated by commas."""

    def parse(text: str) -> list[int]:
        values = sorted({int(part) for part in names(text)})
        if not values or values[0] < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers of at least {least}")
        return values

    parse.__name__ = "list of whole numbers"  # the name in argparse's own messages
    return parse
