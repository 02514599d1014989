"""`weightlora completion`: a script for the shell that completes commands and flags."""

import argparse
from importlib import import_module
from typing import Any

from . import HelpFormatter

SHELLS = ("bash", "zsh", "tcsh")
EPILOG = """examples:
  weightlora completion bash > ~/.local/share/bash-completion/completions/weightlora
  weightlora completion zsh > ~/.zfunc/_weightlora   # with ~/.zfunc in fpath
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser."""
    parser = subparsers.add_parser(
        "completion",
        help="print the completion script for your shell",
        description="Prints a completion script for the commands of weightlora and their flags.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="your shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0."""
    import shtab

    print(shtab.complete(whole_parser(), args.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """The parser of the command line, with all flags of the commands that parse their own."""
    from . import COMMANDS, build_parser

    parser = build_parser()
    choices = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name in COMMANDS:
        command = import_module(f".{name}", __package__)
        if hasattr(command, "full_parser"):
            choices[name] = command.full_parser()
    return parser
