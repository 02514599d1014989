"""The `weightlora` command. One module a subcommand, each with `add_parser(subparsers)` and `run(args) -> int`.

A command that says `takes_rest` parses its own arguments, `args.rest`.

Commands parse, call the library and print. What is wrong with the input is said in one sentence on stderr, with exit
code 2.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from . import compare, quickstart, train

__all__ = ["main"]

COMMANDS: tuple[Any, ...] = (quickstart, train, compare)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong without the usage in front of it; `--help` shows that."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def build_parser(
    commands: Sequence[Any] = COMMANDS,
    prog: str = "weightlora",
    description: str = "Learn which LoRA adapters to keep, and keep only those.",
) -> argparse.ArgumentParser:
    """The parser of a whole command line; `args.run` is the function of the command that was asked for."""
    parser = _Parser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=f"weightlora {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in commands:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process, if none is given) and return its exit code.

    Raises:
        SystemExit: After `--help` and `--version`, and with code 2 on arguments that do not parse.
    """
    return run_command(build_parser(), argv)


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse and run, and turn what is wrong with the input into one sentence.

    Raises:
        SystemExit: After `--help` and `--version`, and with code 2 on arguments that do not parse.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns on CPUs of a kernel that it cannot fetch
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "takes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    command = f"{parser.prog} {args.command}"
    try:
        return args.run(args)
    except ValueError as error:
        return _fail(command, str(error), 2)
    except ModuleNotFoundError as error:
        extra = "recipes" if args.command == "train" else "demo"
        return _fail(
            f"{parser.prog} {args.command}", f"{error.name} is not installed: pip install 'weightlora[{extra}]'", 2
        )
    except KeyboardInterrupt:
        return _fail(command, "interrupted", 130)


def _fail(command: str, message: str, code: int) -> int:
    print(f"{command}: {' '.join(message.split())}", file=sys.stderr)
    return code
