"""Tables of a comparison, as Markdown and in the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .statistics import excludes_zero

__all__ = [
    "difference",
    "escape_markdown",
    "markdown_table",
    "print_table",
    "print_tables",
    "render_markdown",
    "with_interval",
]

LEGEND = (
    "Sorted by held-out loss, lower is better. ± is the half-width of the 95 % t-interval over seeds. `vs`: the loss "
    "minus the reference's at the same seeds; ▼ (lower) and ▲ (higher) mark intervals that exclude 0, uncorrected for "
    "the number of methods; in brackets the number of seeds at which it is lower. Trainable parameters: after "
    "selection, mean over seeds. `Jaccard`: overlap of the kept sets of two seeds, mean over pairs (1: equal sets)."
)


def render_markdown(summary: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """One table per task, then the meaning of the columns, then the notes.

    Args:
        summary: As `statistics.summarize` returns it.
        notes: Sentences.
    """
    parts = []
    for task, rows in summary["tasks"].items():
        header, *cells = _table(rows)
        parts += [f"## {escape_markdown(task)}", markdown_table(header, cells)]
        parts += map(escape_markdown, _missing(rows))
    parts.append(LEGEND)
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def print_tables(summary: Mapping[str, Any], console: Console) -> None:
    """Print one table per task, with the same cells as the Markdown."""
    for task, rows in summary["tasks"].items():
        header, *cells = _table(rows)
        print_table(console, header, cells, task)
        console.print(*map(Text, _missing(rows)), sep="\n")


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


def _references(rows: Mapping[str, Any]) -> list[str]:
    return [key.removeprefix("vs_") for key in next(iter(rows.values())) if key.startswith("vs_")]


def _table(rows: Mapping[str, Any]) -> list[list[str]]:
    """The header and one row per label, in the given order, as plain text."""
    metric = next(iter(rows.values()))["metric"]["name"]
    header = ["method", "seeds", "loss", metric, "trainable parameters"]
    header += [f"vs {reference}" for reference in _references(rows)] + ["Jaccard"]
    return [header, *starmap(_cells, rows.items())]


def _cells(label: str, entry: Mapping[str, Any]) -> list[str]:
    loss, metric, parameters = entry["loss"], entry["metric"], entry["trainable_parameters"]
    cells = [label, str(entry["seeds"]), with_interval(loss), with_interval(metric), f"{parameters:,}"]
    for versus in (value for key, value in entry.items() if key.startswith("vs_")):
        cells.append("" if versus is None else f"{difference(versus)} ({versus['wins']})")
    return [*cells, "" if entry["jaccard"] is None else f"{entry['jaccard']:.2f}"]


def _missing(rows: Mapping[str, Any]) -> Iterator[str]:
    """Why a cell has no interval, or why it is empty."""
    if single := [name for name, entry in rows.items() if entry["loss"]["ci"] is None]:
        yield f"No interval for {', '.join(single)}: an interval needs at least 2 seeds."
    for reference in _references(rows):
        if reference not in rows:
            yield f"There are no results of {reference} to compare with."
            continue
        versus = {name: entry[f"vs_{reference}"] for name, entry in rows.items() if name != reference}
        if apart := [name for name, value in versus.items() if value is None]:
            yield f"Not compared with {reference}, because there is no common seed: {', '.join(apart)}."
        if once := [name for name, value in versus.items() if value and value["ci"] is None and name not in single]:
            yield f"No interval against {reference}, because there is only one common seed: {', '.join(once)}."
