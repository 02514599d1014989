"""The tables of a summary, as Markdown and in the terminal: one for each task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from weightlora.compare.tables import difference, escape_markdown, markdown_table, print_table, with_interval

LEGEND = (
    "Sorted by held-out loss, lower is better. ± is the half-width of the 95 % t-interval over seeds. `vs`: the loss "
    "minus the reference's at the same seeds; ▼ (lower) and ▲ (higher) mark intervals that exclude 0, uncorrected for "
    "the number of methods; in brackets the number of seeds at which it is lower. Trainable parameters: after "
    "selection, mean over seeds. `Jaccard`: overlap of the kept sets of two seeds, mean over pairs (1: equal sets)."
)


def render_markdown(summary: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """The meaning of the columns, then one table per task, then the notes.

    Args:
        summary: As `statistics.summarize` returns it.
        notes: Sentences.
    """
    parts, references = [LEGEND], _references(summary)
    for task, rows in summary["tasks"].items():
        header, *cells = _table(rows, references)
        parts += [f"## {escape_markdown(task)}", markdown_table(header, cells)]
        parts += map(escape_markdown, _missing(rows, references))
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def print_tables(summary: Mapping[str, Any], console: Console) -> None:
    """Print one table per task, with the same cells as the Markdown."""
    references = _references(summary)
    for task, rows in summary["tasks"].items():
        header, *cells = _table(rows, references)
        print_table(console, header, cells, task)
        console.print(*map(Text, _missing(rows, references)), sep="\n")


def _references(summary: Mapping[str, Any]) -> list[str]:
    """The methods to compare with that some task has results of, in the order of the summary."""
    tasks = summary["tasks"].values()
    asked = {
        key.removeprefix("vs_"): None for rows in tasks for key in next(iter(rows.values())) if key.startswith("vs_")
    }
    return [name for name in asked if any(name in rows for rows in tasks)]


def _table(rows: Mapping[str, Any], references: Sequence[str]) -> list[list[str]]:
    """The header and one row per label, in the given order, as plain text."""
    metric = next(iter(rows.values()))["metric"]["name"]
    header = ["method", "seeds", "loss", metric, "trainable parameters"]
    header += [f"vs {reference}" for reference in references] + ["Jaccard"]
    return [header, *(_cells(label, entry, references) for label, entry in rows.items())]


def _cells(label: str, entry: Mapping[str, Any], references: Sequence[str]) -> list[str]:
    loss, metric, parameters = entry["loss"], entry["metric"], entry["trainable_parameters"]
    cells = [label, str(entry["seeds"]), with_interval(loss), with_interval(metric), f"{parameters:,}"]
    for versus in (entry[f"vs_{reference}"] for reference in references):
        cells.append("" if versus is None else f"{difference(versus)} ({versus['wins']})")
    return [*cells, "" if entry["jaccard"] is None else f"{entry['jaccard']:.2f}"]


def _missing(rows: Mapping[str, Any], references: Sequence[str]) -> Iterator[str]:
    """Why a cell has no interval, or why it is empty."""
    if single := [name for name, entry in rows.items() if entry["loss"]["ci"] is None]:
        yield f"No interval for {', '.join(single)}: an interval needs at least 2 seeds."
    for reference in references:
        if reference not in rows:
            yield f"There are no results of {reference} to compare with."
            continue
        versus = {name: entry[f"vs_{reference}"] for name, entry in rows.items() if name != reference}
        if apart := [name for name, value in versus.items() if value is None]:
            yield f"Not compared with {reference}, because there is no common seed: {', '.join(apart)}."
        if once := [name for name, value in versus.items() if value and value["ci"] is None and name not in single]:
            yield f"No interval against {reference}, because there is only one common seed: {', '.join(once)}."
