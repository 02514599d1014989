"""The pictures of a run as files: the choice, the scores over the steps, the budgets, and the loss."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..drawing.curves import PAPER, Palette, frontier_figure, log_figure, scores_figure
from ..drawing.figures import encode
from ..drawing.picture import selection_figure
from ..files import write
from ..selection.reading import read_values
from .gather import RunReport

Draw = Callable[[], Any]


def figures_of(run: RunReport, palette: Palette = PAPER) -> dict[str, Draw]:
    """Name -> what draws that picture of the run, a matplotlib figure. There is none of what the run does not have."""
    figures: dict[str, Draw] = {"selection": lambda: _selection(run)}
    history, kept = run.history, [module.kept for module in run.modules]
    if len(history.steps) > 1:
        figures["scores"] = lambda: scores_figure(
            history.steps, history.scores, kept, run.decisions, run.score_label, palette
        )
    if (budgets := run.frontier()) is not None:
        figures["frontier"] = lambda: frontier_figure(**budgets, palette=palette)
    if losses := run.losses():
        figures["loss"] = lambda: log_figure(losses, run.decisions if run.final else [], palette)
    return figures


def draw_pictures(run: RunReport, kind: str) -> dict[str, bytes]:
    """Name -> the picture as a file, `"png"` or `"svg"`."""
    return {name: encode(draw(), kind) for name, draw in figures_of(run).items()}


def draw_selection(run_directory: str | os.PathLike[str]) -> Path:
    """Draw `selection.png` from the `selection.json` of a run directory, and return its path.

    Raises:
        DataError: If `selection.json` cannot be read, or lists no adapters.

    Example:
        ```python
        from weightlora.report import draw_selection

        draw_selection("runs/first")  # runs/first/selection.png
        ```
    """
    directory = Path(run_directory)
    picture = encode(selection_figure(read_values(directory)), "png")
    return write(directory / "selection.png", lambda partial: partial.write_bytes(picture))


def _selection(run: RunReport) -> Any:
    values = run.selection.to_dict()
    for row, module in zip(values["adapters"], run.modules, strict=True):
        row["score"] = module.score
    figure = selection_figure(values, {module.name for module in run.modules if module.bounded})
    if not run.final:
        of = "" if run.steps is None else f" of {run.steps:,}"
        figure.suptitle(f"step {run.step:,}{of}: {run.kept} of {len(run.modules)} adapters are trained", fontsize=11)
    return figure
