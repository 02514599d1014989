"""A release stops at what is not clean."""

import importlib.util
from pathlib import Path

import pytest
from pages import ROOT


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def repository(root: Path, version: str = "1.2.0", cited: str = "1.2.0", latest: str = "[1.2.0] - 2026-12-01") -> Path:
    (root / "pyproject.toml").write_text(f'[project]\nname = "x"\nversion = "{version}"\n')
    (root / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {cited}\n")
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n## {latest}\n\n## [1.1.0] - 2026-01-01\n")
    return root


def test_a_clean_repository_has_no_problem(release, tmp_path):
    assert release.problems(repository(tmp_path), "") == []


@pytest.mark.parametrize(
    ("wrong", "status", "problem"),
    [
        ({"cited": "1.1.0"}, "", "CITATION.cff has version 1.1.0, and pyproject.toml 1.2.0."),
        (
            {"latest": "[1.2.0] - Unreleased"},
            "",
            "CHANGELOG.md says 'Unreleased' where 1.2.0 needs its date (YYYY-MM-DD).",
        ),
        ({"latest": "[1.3.0] - 2026-12-01"}, "", "CHANGELOG.md begins with 1.3.0, and the version is 1.2.0."),
        ({}, " M a.py\n?? b.py\n", "2 files are changed and not committed."),
    ],
)
def test_what_is_not_clean_is_said(release, tmp_path, wrong, status, problem):
    assert release.problems(repository(tmp_path, **wrong), status) == [problem]


def test_this_repository_agrees_with_itself(release):
    found = release.problems(ROOT, "")
    assert [one for one in found if "needs its date" not in one] == []
