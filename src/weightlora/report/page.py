"""One self-contained HTML page about a run, or about several runs side by side."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from ..extras import require
from .comparison import compare_runs
from .gather import RunReport
from .sections import LEVELS, as_text, describe_run, level_colours


def render_page(runs: Sequence[RunReport]) -> str:
    """The page: everything is in it, and nothing is loaded from a network.

    Args:
        runs: One run; or several, which are compared.

    Returns:
        HTML. Names and texts from the runs are escaped. A content security policy lets the page's own script run
        and no other, and forbids every request.

    Raises:
        MissingPackageError: If jinja2 or matplotlib is not installed.

    Example:
        ```python
        from weightlora.report import read_run, render_page

        html = render_page([read_run("runs/first")])
        ```
    """
    require("jinja2", "matplotlib")
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": _breakable, "text": as_text}
    sections = [describe_run(run, f"run{place}") for place, run in enumerate(runs)]
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=sections,
        comparison=compare_runs(runs, [section["id"] for section in sections]) if len(runs) > 1 else None,
        style=Markup(_read("page.css") + level_styles()),
        script=Markup(script),
        script_hash=digest,
        version=version("weightlora"),
    )


def level_styles() -> str:
    """CSS for the shades of the grid: a class each, its colour in light and in dark, and a text colour on it."""
    rules = []
    for level in range(LEVELS):
        (light, light_ink), (dark, dark_ink) = level_colours(level)
        rules.append(
            f".s{level}{{background:{light};color:{light_ink};"
            f"background:light-dark({light},{dark});color:light-dark({light_ink},{dark_ink})}}"
        )
    return "\n".join(rules)


def _breakable(name: str) -> Any:
    """A module name that may be broken into lines after a dot."""
    from markupsafe import Markup, escape

    return Markup(".<wbr>").join(escape(part) for part in name.split("."))


def _read(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")
