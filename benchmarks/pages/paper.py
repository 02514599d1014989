"""Fills the tables of docs/paper.md, in the layout of the paper: `python -m benchmarks.pages.paper`.

What `make paper` ran comes first. Where it has not run, the tables have the runs of stand-ins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from weightlora.files import write_text

from ..readme import put
from ..results import load_results
from .layout import render_layout

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
QUALITY = ROOT / "benchmarks" / "quality"
LOCAL = ROOT / "benchmarks" / "paper"
MINILM = "MiniLM-L6 (a BERT of 22 M parameters)"


class Table(NamedTuple):
    """One table of the paper.

    Attributes:
        real: Folder in which `make paper` leaves the results of the paper's own model and data.
        stand_in: Folder with the results of a model and data that are at hand; None if there are none.
        tasks: Tasks of the stand-in that belong to the table.
        what: Model and data of the stand-in, or a sentence that says why there is none.
        methods: Methods of the real results that belong to the table; all if empty.
    """

    real: Path
    stand_in: Path | None
    tasks: Sequence[str]
    what: str
    methods: Sequence[str] = ()


TABLES = {
    "glue": Table(
        ROOT / "runs" / "deberta-glue",
        QUALITY,
        ("rotten-tomatoes", "imdb", "vader-tweets"),
        f"{MINILM} on Rotten Tomatoes and IMDb (sentiment, as SST-2) and VADER's tweets (a number, as STS-B)",
    ),
    "squad": Table(
        ROOT / "runs" / "deberta-squad",
        LOCAL / "squad",
        ("ratings", "ratings_v2"),
        f"{MINILM} on questions about the mark that an IMDb review gives, made by a rule from the reviews' text",
    ),
    "llama": Table(
        ROOT / "runs" / "llama-glue",
        LOCAL / "llama",
        ("sst2-verbalised",),
        "SmolLM2-135M (a Llama of 135 M parameters), which answers Rotten Tomatoes in words, as SST-2",
    ),
    "summarization": Table(
        ROOT / "runs" / "bart-summarization",
        None,
        (),
        "It has not run yet, and nothing stands in for it: PyPI has neither a small BART nor data for summarization.",
    ),
    "ablation": Table(
        ROOT / "runs" / "deberta-glue",
        QUALITY / "ablations",
        ("rotten-tomatoes", "vader-tweets"),
        f"{MINILM} on Rotten Tomatoes and VADER's tweets",
        ("random", "weightlora", "weightlora-paper"),
    ),
}


def fill(table: Table) -> str:
    """The table and what it shows; one sentence where nothing ran."""
    results = load_results(table.real)[0]
    if results := [run for run in results if not table.methods or run.method in table.methods]:
        models = sorted({str(result.settings["settings"]["model"]) for result in results})
        return f"**The paper's experiment**, run with {', '.join(models)}.\n\n{render_layout(results)}"
    if table.stand_in is None:
        return table.what
    results = [result for result in load_results(table.stand_in)[0] if result.task in table.tasks]
    if not results:
        return "Nothing of it has run yet."
    return f"**Not the paper's experiment**, but {table.what}.\n\n{render_layout(results)}"


def render(text: str) -> str:
    """The page with the tables between their markers."""
    for name, table in TABLES.items():
        text = put(text, name, fill(table))
    return text


if __name__ == "__main__":
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))
