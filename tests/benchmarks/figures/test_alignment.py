"""The picture of the study of alignment shows its measurements."""

import pytest
from benchmarks.figures import alignment
from matplotlib.patches import Rectangle


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, which are also written."""
    kept, make = [], alignment.new_figure
    monkeypatch.setattr(alignment, "new_figure", lambda *size: kept.append(make(*size)) or kept[-1])
    return kept


def test_alignment_frames_and_marks_what_was_kept(tmp_path, figures):
    adapters = [
        {"name": f"m.{i // 2}.{'qk'[i % 2]}", "trace": trace, "standard_error": 0.1, "score": 0.0, "kept": i in (1, 2)}
        for i, trace in enumerate([-3.0, -1.0, 2.0, 0.0])
    ]
    study = {"model": "tiny", "chosen_by": "chance", "figures": {"auc": 0.25}, "adapters": adapters}
    alignment.draw_alignment(study, tmp_path / "alignment.png")
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
