"""Turns the formulas of the docs into MathML while the site is built, so that no page loads a script for them."""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

# What pymdownx.arithmatex writes for $x$ and $$x$$.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(text: str, **_: Any) -> str:
    """Called by MkDocs with the HTML of each page."""
    text = INLINE.sub(lambda match: to_mathml(match[1], "inline"), text)
    return BLOCK.sub(lambda match: f'<div class="formula">{to_mathml(match[1], "block")}</div>', text)


def to_mathml(formula: str, display: str) -> str:
    """The formula as an element of HTML.

    Raises:
        PluginError: It has a command that cannot be converted. MkDocs prints the message and stops.
    """
    element = convert(html.unescape(formula), display=display)
    if "\\" in element:
        raise PluginError(f"{formula} has a command of LaTeX that latex2mathml leaves as it is: write it differently.")
    return element
