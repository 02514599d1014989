"""The lowest versions that are promised are the ones that are tested: pyproject.toml and requirements-lowest.txt."""

import re

from pages import ROOT

NOT_TESTED = {
    "cosmic-ray",
    "coverage",
    "diffusers",
    "mypy",
    "playwright",
    "pre-commit",
    "ruff",
    "trl",
    "hatchling",
    "ipykernel",
    "latex2mathml",
    "mkdocs-material",
    "mkdocstrings",
    "nbclient",
}
"""Tools, and what needs newer versions of other packages: their tests are left out there."""


def exact(version: str) -> tuple[int, ...]:
    """As many numbers as count: 2.5 and 2.5.0 are one version."""
    numbers = [int(number) for number in version.split(".")]
    while numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def test_the_lowest_versions_are_those_of_the_constraints():
    promised = re.findall(r'"([a-z0-9-]+)(?:\[python\])?>=([0-9.]+)', (ROOT / "pyproject.toml").read_text())
    tested = re.findall(r"^([a-z0-9-]+)==([0-9.]+)$", (ROOT / "requirements-lowest.txt").read_text(), re.MULTILINE)
    floors = {name: exact(version) for name, version in promised if name not in NOT_TESTED}
    assert len(floors) > 15
    assert floors == {name: exact(version) for name, version in tested}
