"""A matplotlib figure as SVG for a web page, whose colours follow the page."""

import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any

LONG_NUMBER = re.compile(r"(\d\.\d)\d+(?=[ \n\"])")


def inline_svg(figure: Any, title: str, name: str, colours: Mapping[str, str]) -> str:
    """The `<svg>` element of a figure, with text as text, for a page that has others beside it.

    Args:
        figure: The figure. Its background is left out.
        title: For who cannot see it.
        name: Begins every id in it, so that those of two figures differ: letters, digits and hyphens.
        colours: Hexadecimal colour in the figure -> CSS value on the page, such as `"var(--ink)"`.

    Returns:
        HTML. Names in the figure are escaped in it.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.3}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r' d="[^"]*"', lambda path: LONG_NUMBER.sub(r"\1", path.group()), svg)
    svg = re.sub(r'(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, value in colours.items():
        svg = svg.replace(colour, value)
    label = escape(title, quote=True)
    described = f'<svg role="img" aria-label="{label}" stroke-linejoin="round" stroke-linecap="butt" '
    return re.sub("<svg ", lambda _: described, svg, count=1)
