"""What selecting saves; `test_readme.py` compares all tables with the stored measurements."""

from benchmarks.decision import SECOND
from benchmarks.pages import costs
from benchmarks.pages.runs import losses_of

from weightlora.compare.statistics import paired


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_significant_differences_from_the_default_are_marked():
    found = rows(costs.savings())
    for task, seeds in SECOND.seeds.items():
        row = found[f"loss, {costs.NEW_TASKS[task]} ({seeds} seeds)"]
        for cell, label in zip(row, costs.COMPARED, strict=True):
            versus = paired(losses_of(task, label), losses_of(task, "probe"))
            if versus is None:
                assert label == "lora-equal" and cell == ""
                continue
            marks = {"▲": versus["mean"] > versus["ci"], "▼": -versus["mean"] > versus["ci"]}
            assert {mark: mark in cell for mark in marks} == marks, (task, label)
