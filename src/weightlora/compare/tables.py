"""Tables of a comparison, as Markdown and in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .statistics import excludes_zero


def print_table(console: Console, header: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> None:
    """Print a table of plain text: the first column to the left, all others to the right."""
    table = Table(title=Text(title))
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text: the first column to the left, all others to the right."""
    line = ["---", *["---:"] * (len(header) - 1)]
    cells = [map(escape_markdown, header), line, *(map(escape_markdown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def escape_markdown(text: str) -> str:
    """The text on one line, escaped for Markdown (on GitHub and in Python-Markdown, also in cells)."""
    plain = {ord(sign): f"\\{sign}" for sign in "\\`*_[]|#"} | {ord(sign): f"&#{ord(sign)};" for sign in "&<>~"}
    return " ".join(text.split()).translate(plain)


def with_interval(value: Mapping[str, Any], style: str = ".4f") -> str:
    """A mean and the half-width of its interval, where there is one."""
    return f"{value['mean']:{style}}" + ("" if value["ci"] is None else f" ± {value['ci']:.4f}")


def difference(versus: Mapping[str, Any] | None) -> str:
    """A paired difference as text, with a mark where its interval excludes 0. Empty for None."""
    if versus is None:
        return ""
    mark = (" ▼" if versus["mean"] < 0 else " ▲") if excludes_zero(versus) else ""
    return with_interval(versus, "+.4f") + mark
