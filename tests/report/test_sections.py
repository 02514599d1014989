"""The values of one run for the template: shades, marks and texts."""

from pathlib import Path

from run_directories import write_run

from weightlora.drawing.figures import contrast
from weightlora.report import read_run
from weightlora.report.costs import Cost
from weightlora.report.sections import (
    LEVELS,
    NOTHING,
    describe_run,
    format_cost,
    lead,
    level_colours,
    level_of,
    place_cells,
)


def test_shades():
    assert [level_of(value, 0.0, 1.0) for value in (0.0, 0.5, 1.0)] == [0, LEVELS // 2, LEVELS - 1]
    assert level_of(None, 0, 1) == level_of(1.0, 1.0, 1.0) == NOTHING


def test_text_can_be_read_on_every_shade():
    """WCAG AA: 4.5."""
    colours = [pair for level in range(LEVELS) for pair in level_colours(level)]
    assert min(contrast(ink, colour) for colour, ink in colours) > 4.5
    assert [len(set(one)) for one in zip(*map(level_colours, range(LEVELS)), strict=True)] == [LEVELS, LEVELS]


def test_cells_are_placed_and_gaps_stay_empty():
    rows = place_cells(["q", "head"], ["0", "1", "-"], [(0, 0), (0, 1), (1, 2)], ["a", "b", "c"])
    assert rows == [
        {"label": "q", "cells": ["a", "b", None]},
        {"label": "head", "cells": [None, None, "c"]},
    ]


def test_costs_as_text():
    assert format_cost(Cost("adapters", "count", 36, 9)) == {
        "name": "adapters",
        "before": "36",
        "after": "9",
        "change": "\u221275%",
    }
    assert format_cost(Cost("step", "seconds", None, 0.5))["change"] is None
    assert format_cost(Cost("bytes", "bytes", 0, 5))["change"] is None


def test_a_run(tmp_path: Path):
    run = read_run(write_run(tmp_path / "first", layers=2, steps=10, keep=4))
    values = describe_run(run, "run0")
    cells = [cell for row in values["map"]["rows"] for cell in row["cells"]]
    assert [cell["mark"] for cell in cells if " kept" in cell["classes"]] == ["8"] * 4
    assert sum(" bounded" in cell["classes"] for cell in cells) == sum(module.bounded for module in run.modules) > 0
    assert [entry["text"] for entry in values["map"]["legend"]][:2] == ["kept, rank 8", "dropped"]
    assert [chart["title"] for chart in values["charts"]] == ["Update credit of each module", "Loss"]
    best = max(run.modules, key=lambda module: module.score)
    assert f"{best.name}. {best.why} Update credit {best.score:.4g}." in cells[best.row * 2 + best.column]["text"]
    assert values["lead"] == lead(run) and lead(run).startswith("4 of 14 modules are kept: ")


def test_a_run_that_goes_on_marks_nothing(tmp_path: Path):
    values = describe_run(read_run(write_run(tmp_path, layers=2, steps=10, final=False)), "run0")
    assert {cell["classes"] + cell["mark"] for row in values["map"]["rows"] for cell in row["cells"]} == {""}
    assert values["lead"] == "The selection is at step 10 of 10. 14 of 14 modules are trained."
    assert values["snippets"] == []


def test_many_modules_are_counted_in_the_lead(tmp_path: Path):
    run = read_run(write_run(tmp_path, layers=40, steps=2, keep=140))
    assert len(lead(run)) < 250 and " of self_attn.q_proj" in lead(run)
