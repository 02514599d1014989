"""Counts what the fuzz tests try and what comes of it, and prints the table if there are more examples than usual."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from fuzzing import TALLY, VARIABLE, Row, table


@pytest.fixture(autouse=True)
def tally(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hands the counts of the test on to its report, from whichever process it runs in."""
    TALLY.clear()
    yield
    name = request.node.originalname.removeprefix("test_").split("_are_")[0].replace("_", " ")
    for kind, row in TALLY.items():
        request.node.user_properties.append(("fuzz", [kind or name, asdict(row)]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    found = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                found.update(value for name, value in report.user_properties if name == "fuzz")
    if found and os.environ.get(VARIABLE):
        terminalreporter.write_line("")
        terminalreporter.write_line(table({kind: Row(**row) for kind, row in found.items()}))
