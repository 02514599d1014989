"""Short forms of values and of other libraries' errors, for a message of one sentence."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: Any) -> str:
    """The `repr` of a value, shortened: a value of a stranger's file may be long."""
    return _SHORT.repr(value)


def printable(text: str) -> str:
    """A text without line breaks, codes for the terminal and other invisible characters: they are escaped."""
    return "".join(one if one.isprintable() else _escape(ord(one)) for one in text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(name: str, most: int = 200) -> str:
    """A name or a path, whose middle is left out if it is longer than a sentence can hold."""
    return name if len(name) <= most else f"{name[: most // 2]}...{name[-most // 4 :]}"


def first_line(error: BaseException) -> str:
    """The first line of an error without its full stop, or the name of its class if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:400].rstrip(".") if lines else type(error).__name__


def are(number: int) -> str:
    """The verb after a number of things: `"is"` after 1."""
    return "is" if number == 1 else "are"


def counted(number: int, noun: str) -> str:
    """A number of things, as in `"1 module"` or `"2,000 modules"`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of an error message: `": the nearest is NAME"`, or nothing if no known name is similar."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": the nearest is {prefix}{close[0]}" if close else ""
