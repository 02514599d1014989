"""A figure inside a page: valid, small, with the page's colours, and nothing in it but a picture."""

import re
from xml.etree import ElementTree

from weightlora.drawing.curves import PAPER, Palette, log_figure, scores_figure
from weightlora.drawing.svg import inline_svg

NAMED = Palette("#010203", "#010204", "#010205", "#010206", "#010207", ("#010208",))


def test_colours_ids_and_numbers():
    scores = [[step / 7, step / 3] for step in range(50)]
    figure = scores_figure(list(range(50)), scores, [True, False], [49], palette=NAMED)
    svg = inline_svg(figure, "Scores", "one", {"#010205": "var(--kept)", "#010203": "var(--ink)"})
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) and all(identifier.startswith("one-") for identifier in ids)
    assert {"one-module-0", "one-module-1"} <= set(ids)
    assert "stroke: var(--kept)" in svg and "fill: var(--ink)" in svg and "#010203" not in svg
    references = re.findall(r"url\(#([^)]*)\)", svg)
    assert references and set(references) <= set(ids)
    longest = max(len(number) for path in root.iter() if path.get("d") for number in path.get("d", "").split())
    assert longest <= len("-1234.5")


def test_two_figures_share_no_id():
    figures = [inline_svg(log_figure({"a": [(1, 1.0), (2, 2.0)]}, []), "Loss", name, {}) for name in ("a", "b")]
    found = [{e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")} for svg in figures]
    assert found[0] and not found[0] & found[1]


def test_text_is_text_and_is_escaped():
    figure = log_figure({"<script>alert(1)</script>": [(1, 1.0), (2, 2.0)]}, [], palette=PAPER)
    svg = inline_svg(figure, 'Loss of "<b>"', "x", {})
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'Loss of "<b>"' and not re.search("<(script|style|metadata)", svg)
    assert "<script>alert(1)</script>" in [element.text for element in root.iter() if element.tag.endswith("text")]
