"""The pictures of the side studies show the measurements they are given."""

import matplotlib.image
import pytest
from benchmarks.figures import studies
from matplotlib.patches import Rectangle


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, which are also written."""
    kept, make = [], studies.new_figure
    monkeypatch.setattr(studies, "new_figure", lambda *size: kept.append(make(*size)) or kept[-1])
    return kept


def test_memory_has_a_panel_an_order_and_a_line_a_rank(tmp_path, figures):
    both = ["top", "bottom"]
    cases = [
        {"adapters": count, "rank": rank, "orders": orders, "peak_bytes": 1e6 * (count + rank), "model_bytes": 5e5}
        for count, orders in ((4, both), (0, both), (2, ["top"]))
        for rank in (8, 1)
    ]
    settings = {"orders": both, "ranks": [8, 1], "batch_size": 2, "max_length": 3}
    study = {"model": "tiny $x$", "device": "cpu", "settings": settings, "cases": cases}
    path = studies.draw_memory(study, tmp_path / "memory.png")
    assert matplotlib.image.imread(path).ndim == 3 and [found.name for found in tmp_path.iterdir()] == ["memory.png"]
    [figure] = figures
    top, bottom = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in top.lines if line.get_marker() == "o"}
    assert lines == {"rank 1": [[0, 1], [2, 3], [4, 5]], "rank 8": [[0, 8], [2, 10], [4, 12]]}
    assert [line.get_xdata().tolist() for line in bottom.lines if line.get_marker() == "o"] == [[0, 4], [0, 4]]
    assert top.get_ylim()[0] == bottom.get_ylim()[0] == 0


def test_alignment_frames_and_marks_what_was_kept(tmp_path, figures):
    adapters = [
        {"name": f"m.{i // 2}.{'qk'[i % 2]}", "trace": trace, "standard_error": 0.1, "score": 0.0, "kept": i in (1, 2)}
        for i, trace in enumerate([-3.0, -1.0, 2.0, 0.0])
    ]
    study = {"model": "tiny", "chosen_by": "chance", "figures": {"auc": 0.25}, "adapters": adapters}
    studies.draw_alignment(study, tmp_path / "alignment.png")
    [figure] = figures
    grid, bars = figure.axes[:2]
    squares = [patch for patch in grid.patches if isinstance(patch, Rectangle)]
    assert [square.get_linewidth() > 1 for square in squares] == [False, True, True, False]
    red, _, blue, _ = squares[0].get_facecolor()
    assert blue > red and squares[2].get_facecolor()[0] > squares[2].get_facecolor()[2]  # descends; climbs
    assert [patch.get_height() for patch in bars.patches] == [-3, -1, 0, 2]
    [marks] = [line for line in bars.lines if line.get_marker() == "o"]
    assert marks.get_xdata().tolist() == [1, 3]
    assert "2 of 4 adapters kept by chance" in figure.get_suptitle() and "0.25" in figure.get_suptitle()
