"""What a selection has decided, for people: one line of text, a table in the terminal, a table in a notebook."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from .adapters import LoraAdapter
from .adapters.outcome import EXPORT, misread
from .layout import lay_out
from .wording import printable

HEADER = ("module", "kept", "score", "rank", "parameters at the start")


class Summary(list[dict[str, Any]]):
    """One row for each adapter, in model order: `name`, `kind`, `kept`, `score`, `omega`, `rank`, `parameters`.

    Attributes:
        text: The kept modules by kind and layer, and whether a server needs an export of the adapter.

    Example:
        ```python
        summary = selector.summary()
        print(summary)  # a table
        kept = [row["name"] for row in summary if row["kept"]]
        ```
    """

    def __init__(self, rows: Iterable[dict[str, Any]], text: str) -> None:
        super().__init__(rows)
        self.text = text

    @classmethod
    def of(cls, selector: Any) -> "Summary":
        """The summary of a `WeightLora`."""
        omega, scores, ranks = selector.omega, selector.scores, selector.ranks
        rows = [
            {
                "name": name,
                "kind": selector.kinds[name],
                "kept": name in ranks and omega[name] != 0,
                "score": scores[name],
                "omega": omega[name],
                "rank": ranks.get(name),
                "parameters": selector.sizes[name],
            }
            for name in selector.names
        ]
        return cls(rows, _sentence(rows, selector))

    def __str__(self) -> str:
        """The text and a table; without rich, the text and the names that were kept."""
        try:
            from rich.console import Console
        except ModuleNotFoundError:
            return "\n".join(map(printable, [self.text, *(row["name"] for row in self if row["kept"])]))
        console = Console(width=120)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for column in HEADER:
            table.add_column(column, justify="left" if column == "module" else "right", overflow="fold")
        for row in self:
            table.add_row(*map(Text, _cells(row)), style="bold" if row["kept"] else "dim")
        return Group(Text(printable(self.text)), table)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in HEADER)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in _cells(row))}</tr>" for row in self)
        return f"<p>{html.escape(self.text)}</p><table><tr>{head}</tr>{rows}</table>"


class Described:
    """How a selector shows itself."""

    adapters: list[LoraAdapter]

    @property
    def kept(self: Any) -> list[str]:
        """Names of the adapters whose gate is not 0, in model order."""
        return [name for name, omega in self.omega.items() if omega != 0]

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of every adapter that is still on the model."""
        return {adapter.name: adapter.rank for adapter in self.adapters}

    def summary(self) -> Summary:
        """One row (a dict) for each adapter, in model order; printed, or shown in a notebook, it is a table."""
        return Summary.of(self)

    def __repr__(self: Any) -> str:
        step = f"step {self.step_count} of {self.config.steps}, " if self.config.steps else ""
        left = f"{len(self.kept)} of {len(self.names)} adapters"
        return f"WeightLora(selection={self.config.selection!r}, phase={self.phase!r}, {step}{left})"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def _cells(row: dict[str, Any]) -> list[str]:
    rank = "" if row["rank"] is None else str(row["rank"])
    score = "" if row["score"] is None else f"{row['score']:.4g}"
    return [printable(row["name"]), "yes" if row["kept"] else "", score, rank, f"{row['parameters']:,}"]


def _sentence(rows: list[dict[str, Any]], selector: Any) -> str:
    names = [row["name"] for row in rows if row["kept"]]
    if selector.phase != "train":
        active, steps = f"{len(names)} of {len(rows)} LoRA adapters are active", selector.config.steps
        if not steps:
            return f"{active}: the choice is made before the first step."
        return f"{active} after {selector.step_count} of {steps} selection steps."
    cost = "" if selector.limit is None else f" {selector.limit.in_words([row['kept'] for row in rows])}"
    kinds, export = by_kind(names, selector.names), f" {EXPORT}" if misread(selector.adapters) else ""
    left, total = sum(adapter.size for adapter in selector.adapters), sum(row["parameters"] for row in rows)
    return (
        f"WeightLoRA kept {len(names)} of {len(rows)} adapters, with {left:,} of {total:,} parameters "
        f"({left / total:.0%}): {kinds}.{cost}{export}"
    )


def by_kind(names: Sequence[str], among: Sequence[str]) -> str:
    """Module names, shortened: `"attention.self.value in layers 0-2, 5; pooler.dense"`.

    Args:
        names: The modules.
        among: All modules that they were chosen from. A short name fits no other one of them.
    """
    grid, chosen = lay_out(among), set(names)
    layers: dict[int, list[str]] = {}  # by row: a module outside the layers may have the label of one in them
    for name, (row, column) in zip(among, grid.cells, strict=True):
        if name in chosen:
            layers.setdefault(row, []).append(grid.columns[column])
    kinds = ((grid.rows[row], found) for row, found in layers.items())
    return "; ".join(
        kind if found == ["-"] else f"{kind} in {_ranges(found)}" if kind else _ranges(found) for kind, found in kinds
    )


def _ranges(columns: list[str]) -> str:
    """`["0", "1", "2", "5"]` as `"layers 0-2, 5"`."""
    numbers = sorted(map(int, columns))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"layer{'s' * (len(numbers) > 1)} {text}"
