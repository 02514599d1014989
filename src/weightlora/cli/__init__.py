"""The `weightlora` command. Each command is a module with `add_parser(subparsers)` and `run(args) -> int`.

A command that sets `takes_rest` parses its own arguments, `args.rest`.

Commands parse, call the library and print. An error of this package (`WeightLoraError`) is one sentence on stderr with
exit code 2, and `--debug` shows its traceback, too. Any other error is a traceback.
"""

import argparse
import contextlib
import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn

from ..errors import WeightLoraError
from ..extras import missing_package
from ..wording import nearest
from .quiet import silence_bitsandbytes

__all__ = ["HelpFormatter", "build_parser", "main", "run_command", "spellings"]

COMMANDS = ("quickstart", "select", "train", "show", "export", "compare", "completion")
DEBUG = "--debug"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BARRED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of a place that the user gave, or of what is inside it."""
INTERRUPTED = 130
"""The exit code of programs that Ctrl-C ends."""
NO_READER = 141
"""The exit code of programs that SIGPIPE ends."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong without the usage before it. `--help` shows the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            names = list(action.choices)
            self.error(f"{value!r} is not a command{nearest(value, names)}; there are {', '.join(names)}.")
        super()._check_value(action, value)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Fills paragraphs to the width, leaves examples as they are, and shows defaults and one spelling of each flag."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(
            p if "\n " in p else super(HelpFormatter, self)._fill_text(p, width, indent) for p in paragraphs
        )

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = copy(action)
        shown.option_strings = action.option_strings[:1] if action.dest != "help" else action.option_strings
        return super()._format_action_invocation(shown)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False  # 0 is a default to show
        return action.help if none or "(default" in (action.help or "") else super()._get_help_string(action)


def spellings(name: str) -> list[str]:
    """Both spellings of a flag: `--learning_rate`, as in Transformers, and `--learning-rate`."""
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def build_parser(
    commands: Sequence[Any] | None = None,
    prog: str = "weightlora",
    description: str = "Find out which LoRA adapters a model needs, and keep only those.",
) -> argparse.ArgumentParser:
    """The parser of a whole command line. `args.run` is the function of the command that was asked for.

    Args:
        commands: Modules of the commands. Those of `weightlora` if None.
        prog: Name of the command line.
        description: What it does.
    """
    parser = _Parser(
        prog=prog, description=description, epilog=f"{prog} COMMAND --help explains a command.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"weightlora {version('weightlora')}")
    parser.add_argument(DEBUG, action="store_true", help="show the traceback of every error")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    if commands is None:
        commands = [import_module(f".{name}", __name__) for name in COMMANDS]
    for command in commands:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (`sys.argv` if None) and return its exit code.

    Raises:
        SystemExit: After `--help` and `--version`, and with code 2 on arguments that do not parse.
    """
    try:
        parser = build_parser()
    except KeyboardInterrupt:  # it imports the commands, which takes a moment
        return _fail("weightlora", "interrupted", INTERRUPTED)
    return run_command(parser, argv)


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse and run a command. Turn an error of this package into one sentence.

    Raises:
        SystemExit: After `--help` and `--version`, and with code 2 on arguments that do not parse.
        Exception: Any error that is not of this package.
    """
    silence_bitsandbytes()
    if sys.stdout is None:  # closed, as by `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a plus-minus sign or a name that its encoding lacks
    args, rest = parser.parse_known_args(argv)
    if args.command is None:
        if rest:
            parser.error(f"{rest[0]} is not an argument, and there is no command: {parser.prog} --help shows them.")
        parser.print_help(sys.stderr)
        return 2
    takes_rest = getattr(args, "takes_rest", False)
    args.rest = [word for place, word in enumerate(rest) if not _is_debug(rest[place:], takes_rest)]
    debug = args.debug or len(args.rest) < len(rest)
    if not _has_place():
        parser.error("the working directory was deleted: change to one that exists.")
    if args.rest and not takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(args.rest)}")
    command = f"{parser.prog} {args.command}"
    try:
        with _one_line_warnings(command):
            code: int = args.run(args)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return _fail(command, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        return NO_READER
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # a console of rich ends with 1 then
            return NO_READER
        raise
    except Exception as error:
        if (message := _sentence_of(error)) is None:
            raise
        if debug:
            traceback.print_exc()
        return _fail(command, message, 2)
    finally:
        if (rich := sys.modules.get("rich.console")) is not None:
            rich.Console(stderr=True).show_cursor()  # a bar that did not end has hidden it


def _has_place() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _is_debug(words: Sequence[str], takes_rest: bool) -> bool:
    """Whether the first word is our switch. With a value, it is an argument of Transformers that has the same name."""
    has_value = takes_rest and len(words) > 1 and not words[1].startswith("-")
    return words[0] == DEBUG and not has_value


@contextlib.contextmanager
def _one_line_warnings(command: str) -> Iterator[None]:
    """Print a warning as one sentence, without the line of code that raised it, and only once."""
    usual, said = warnings.formatwarning, set[str]()

    def as_sentence(message: Warning | str, *_: object, **__: object) -> str:
        repeated = str(message) in said
        said.add(str(message))
        return "" if repeated else f"{command}: {message}\n"

    warnings.formatwarning = as_sentence
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _sentence_of(error: Exception) -> str | None:
    """What to say of an error of this package, a missing package, a full disk or a barred place; None for others."""
    if isinstance(error, WeightLoraError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        missing = missing_package(error)
        return None if missing is None else str(missing)
    if not isinstance(error, OSError):
        return None
    if error.errno in FULL:
        return f"{error.filename or 'the output'} cannot be written ({error.strerror}): make room, and try again."
    if error.errno in BARRED and error.filename is not None:
        return f"{error.filename} cannot be used ({error.strerror}): change its permissions, or give another place."
    return None


def _reader_has_left() -> bool:
    """Whether nobody reads stdout any more, as after `| head`. If so, what is left to write goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _fail(command: str, message: str, code: int) -> int:
    print(f"{command}: {' '.join(message.split())}", file=sys.stderr)
    return code
