"""Turns the formulas of the docs into MathML while the site is built, so that no page loads a script for them."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex writes for $x$ and $$x$$.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(text: str, **_: Any) -> str:
    """Called by MkDocs with the HTML of each page."""
    text = INLINE.sub(lambda match: convert(html.unescape(match[1])), text)
    return BLOCK.sub(lambda match: f'<div class="formula">{convert(html.unescape(match[1]), display="block")}</div>', text)
