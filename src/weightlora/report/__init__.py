"""What a run directory says, for people: a record, pictures and a page, without the model.

matplotlib and jinja2 load when something is drawn or rendered.
"""

from .gather import RunReport, as_data, read_run, read_runs
from .page import render_page
from .pictures import draw_selection

__all__ = ["RunReport", "as_data", "draw_selection", "read_run", "read_runs", "render_page"]
