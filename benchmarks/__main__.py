"""`python -m benchmarks`, from the root of the repository: run the experiments and summarize what they say."""

import sys
from collections.abc import Sequence

from weightlora.cli import build_parser, run_command

from .commands import (
    alignment,
    budgets,
    draws,
    golden,
    memory,
    prefix,
    prices,
    run,
    speed,
    summarize,
    train,
    tune,
)

COMMANDS = (run, tune, summarize, memory, alignment, prefix, budgets, prices, draws, speed, golden, train)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (the one of the process if none is given) and return its exit code."""
    return run_command(build_parser(COMMANDS, "benchmarks", "The experiments of weightlora."), argv)


if __name__ == "__main__":
    sys.exit(main())
