"""How README.md and the pages in docs are written."""

import re

import pytest
from pages import ROOT

FORBIDDEN = ("told apart", "of one's own", "falls silent", "fall silent", "a line a step")


def test_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
    words = [word for line in text.splitlines() if not line.startswith("|") for word in line.split()]
    assert len(words) <= 500


def test_no_page_installs_a_name_that_is_not_ours():
    """The name on PyPI is not ours to give: install from a clone or from a wheel file."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"pip install '?weightlora(?!-\d)", page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("place", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "src/**/*.py"])
def test_plain_english(place: str):
    """A few phrases that make a native reader stop."""
    texts = {path: " ".join(path.read_text(encoding="utf-8").replace("#", " ").split()) for path in ROOT.glob(place)}
    found = [f"{path.relative_to(ROOT)}: {phrase}" for path in texts for phrase in FORBIDDEN if phrase in texts[path]]
    assert texts and not found
