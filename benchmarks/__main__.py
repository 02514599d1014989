"""`python -m benchmarks`, from the root of the repository: run, tune and summarize the experiments."""

import sys
from collections.abc import Sequence

from weightlora.cli import build_parser, run_command

from . import cli
from .studies import cli as studies

COMMANDS = (cli, studies)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    return run_command(build_parser(COMMANDS, "benchmarks", "The experiments of weightlora."), argv)


if __name__ == "__main__":
    sys.exit(main())
