"""The page as HTML, without a browser: what is in it, how large it is, and that names stay text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_directories import write_run

from weightlora.report import read_runs, render_page
from weightlora.report.page import level_styles
from weightlora.report.sections import LEVELS

ATTACK = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "wbr", "input"}


class Page(HTMLParser):
    """Elements with their attributes, and the texts of those of one tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.unclosed: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.unclosed.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag

    def handle_data(self, data):
        for tag in set(self.unclosed):
            self.text[tag][-1] += data

    def with_class(self, tag: str, name: str) -> list[dict[str, str | None]]:
        return [attrs for found, attrs in self.elements if found == tag and name in (attrs.get("class") or "").split()]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> tuple[Path, str]:
    directory = write_run(tmp_path_factory.mktemp("runs") / "first", layers=3, steps=10, keep=6)
    return directory, render_page(read_runs([directory]))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("runs")
    runs = [write_run(root / name, layers=2, steps=4, keep=4, seed=seed) for seed, name in enumerate("ab")]
    return render_page(read_runs(runs))


def test_the_grid_has_a_cell_for_each_module_and_marks_the_kept(one):
    page = Page(one[1])
    assert page.unclosed == []
    cells = [attrs for tag, attrs in page.elements if tag == "td" and attrs.get("role") == "gridcell"]
    assert len(cells) == 21 and len(page.with_class("td", "kept")) == 6
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    lines = {cell["data-line"] for cell in cells}
    assert len(lines) == 21 and lines <= set(ids)
    for _, attrs in page.elements:
        for name in ("aria-controls", "aria-labelledby", "aria-describedby"):
            assert attrs.get(name, ids[0]) in ids


def test_nothing_is_loaded_and_only_its_own_script_may_run(one):
    page = Page(one[1])
    [policy] = [attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv")]
    [script] = page.text["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy
    links = [value for _, attrs in page.elements for name, value in attrs.items() if name in ("src", "href")]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\((?!#)|@import", one[1])


def test_the_table_and_the_blocks(one):
    directory, html = one
    page = Page(html)
    values = [attrs["data-value"] for tag, attrs in page.elements if tag == "td" and "data-value" in attrs]
    assert len(values) == 21 * 5
    selection = json.loads((directory / "selection.json").read_text())
    kept = [row["name"] for row in selection["adapters"] if row["kept"]]
    assert all(name in page.text["code"][0] for name in kept)
    assert len(page.text["code"]) == len(page.with_class("button", "copy")) >= 1


def test_before_the_choice_modules_are_trained_and_not_kept(one, tmp_path: Path):
    open_run = render_page(read_runs([write_run(tmp_path / "open", layers=2, steps=10, final=False)]))
    (done, still) = (Page(html).text["th"] for html in (one[1], open_run))
    assert ("kept" in done, "trained" in done, "kept" in still, "trained" in still) == (True, False, False, True)


@pytest.mark.parametrize(("step", "when"), [(5, "before"), (15, "after")])
def test_a_cost_that_is_known_on_one_side_of_the_choice_alone_says_on_which(tmp_path: Path, step: int, when: str):
    directory = write_run(tmp_path / "run", layers=2, steps=10, keep=4)
    line = json.dumps({"step": step, "seconds_per_step": 0.25}) + "\n"
    (directory / "log.jsonl").write_text(line)
    (found,) = [text for text in Page(render_page(read_runs([directory]))).text["dd"] if "250.0 ms" in text]
    assert found.split() == ["250.0", "ms", when, "the", "choice"]


def test_two_pages_of_one_run_are_the_same(one):
    assert render_page(read_runs([one[0]])) == one[1]


def test_names_stay_text(tmp_path: Path):
    directory = write_run(tmp_path / "<b>run", layers=1, steps=3, keep=2, name=f"a.{{}}.{ATTACK}{{}}")
    other = write_run(tmp_path / 'quote"', layers=1, steps=3, keep=2, seed=1)
    for runs in ([directory], [directory, other]):
        html = render_page(read_runs(runs))
        page = Page(html)
        assert len(page.text["script"]) == 1 and ATTACK not in html and "<b>run" not in html
        assert any(f"a.0.{ATTACK}mlp.up_proj" in text for text in page.text["th"])
        assert page.unclosed == []


def test_a_comparison_has_the_runs_and_their_parts(two):
    page = Page(two)
    cells = [attrs for tag, attrs in page.elements if tag == "td" and attrs.get("role") == "gridcell"]
    assert len(cells) == 3 * 14 and len([tag for tag, _ in page.elements if tag == "details"]) == 2
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_headings_of_a_run_are_below_its_name(one, two):
    tags = [[tag for tag, _ in Page(html).elements if re.fullmatch("h[1-6]", tag)] for html in (one[1], two)]
    assert tags == [["h1", *["h2"] * 6], ["h1", *["h2"] * 3, *["h2", *["h3"] * 6] * 2]]


def test_a_large_run_gives_a_page_under_3_mb(tmp_path: Path):
    """504 modules. Of the steps, as many are drawn as at 10,000."""
    html = render_page(read_runs([write_run(tmp_path, layers=72, steps=120, keep=125)]))
    assert len(html.encode()) < 3e6
    assert "79 of 120 steps are drawn, evenly spaced." in html


def test_each_shade_has_a_style():
    assert re.findall(r"\.s(\d+)\{", level_styles()) == [str(level) for level in range(LEVELS)]
