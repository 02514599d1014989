"""Stops a release at what is not clean: versions that disagree, a changelog without a date, changes without a commit.

python .ci/release.py        # checks, and prints the version
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(root: Path, status: str) -> list[str]:
    """Sentences about what is not clean.

    Args:
        root: Of the repository.
        status: What `git status --porcelain` prints.
    """
    version = version_of(root)
    found = []
    cited = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    if cited is None or cited[1].strip('"') != version:
        found.append(f"CITATION.cff has version {cited[1] if cited else 'none'}, and pyproject.toml {version}.")
    latest = re.search(r"^## \[(.+?)\] - (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    if latest is None or latest[1] != version:
        found.append(
            f"CHANGELOG.md begins with {latest[1] if latest else 'no version'}, and the version is {version}."
        )
    elif not re.fullmatch(r"\d{4}-\d{2}-\d{2}", latest[2]):
        found.append(f"CHANGELOG.md says {latest[2]!r} where {version} needs its date (YYYY-MM-DD).")
    if status.strip():
        found.append(f"{len(status.strip().splitlines())} files are changed and not committed.")
    return found


def version_of(root: Path) -> str:
    """The version in pyproject.toml."""
    found = re.search(r'^version = "(.+)"$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def main() -> int:
    """Print what is not clean and return 1, or print the version and return 0."""
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    if found := problems(ROOT, status):
        print(*found, sep="\n", file=sys.stderr)
        return 1
    print(version_of(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
