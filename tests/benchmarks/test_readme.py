"""The figures of the README and of the pages in docs are those of the stored results."""

import json
import re

from benchmarks import readme
from benchmarks.pages import costs
from pictures import PNG

MARKED = """\
<!-- one -->
old
<!-- /one -->
between
<!-- two -->
<!-- /two -->
"""


def test_a_table_goes_between_its_own_markers():
    assert readme.put(MARKED, "one", "\n| \\1 |\n\n") == MARKED.replace("old", "| \\1 |")
    assert readme.put(MARKED, "two", "new") == MARKED.replace("<!-- two -->\n", "<!-- two -->\nnew\n")
    assert readme.put(MARKED, "three", "new") == MARKED


def test_only_the_tables_of_a_page_are_made(monkeypatch):
    monkeypatch.setattr(readme, "TABLES", {"one": lambda: "1", "three": lambda: 1 / 0})
    assert readme.render(MARKED) == MARKED.replace("old", "1")


def test_the_tables_are_those_of_the_stored_results():
    marked: set[str] = set()
    for page in readme.PAGES:
        text = page.read_text(encoding="utf-8")
        assert readme.render(text) == text, "run: python -m benchmarks.readme"
        marked |= set(re.findall(r"^<!-- ([\w-]+) -->$", text, re.MULTILINE))
    assert marked == set(readme.TABLES)


def test_the_pictures_are_there():
    for path in readme.PICTURES:
        assert path.read_bytes().startswith(b"\x89PNG"), "run: python -m benchmarks.readme"


def test_the_picture_of_a_choice_is_of_the_stored_quickstart_run():
    selection = json.loads((costs.RESULTS / "quickstart" / "selection.json").read_text(encoding="utf-8"))
    stored = costs.stored("quickstart")
    assert [adapter["name"] for adapter in selection["adapters"] if adapter["kept"]] == stored["kept"]


def test_the_picture_of_a_choice_is_drawn_where_it_is_asked_for(tmp_path):
    path = readme.draw_choice(tmp_path / "images" / "choice.png")
    assert path == tmp_path / "images" / "choice.png" and path.read_bytes().startswith(PNG)
