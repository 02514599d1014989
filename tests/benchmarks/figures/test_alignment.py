"""The picture of the study of alignment shows its measurements."""

from benchmarks.figures.alignment import draw_alignment
from pictures import squares


def test_alignment_frames_and_marks_what_was_kept(figure_of):
    adapters = [
        {"name": f"m.{i // 2}.{'qk'[i % 2]}", "trace": trace, "standard_error": 0.1, "score": 0.0, "kept": i in (1, 2)}
        for i, trace in enumerate([-3.0, -1.0, 2.0, 0.0])
    ]
    study = {"model": "tiny", "chosen_by": "chance", "figures": {"auc": 0.25}, "adapters": adapters}
    figure = figure_of(draw_alignment, study)
    grid, bars = figure.axes[:2]
    cells = squares(grid)
    assert [square.get_linewidth() > 1 for square in cells] == [False, True, True, False]
    red, _, blue, _ = cells[0].get_facecolor()
    assert blue > red and cells[2].get_facecolor()[0] > cells[2].get_facecolor()[2]  # descends; climbs
    assert [patch.get_height() for patch in bars.patches] == [-3, -1, 0, 2]
    [marks] = [line for line in bars.lines if line.get_marker() == "o"]
    assert marks.get_xdata().tolist() == [1, 3]
    assert "2 of 4 adapters kept by chance" in figure.get_suptitle() and "0.25" in figure.get_suptitle()
