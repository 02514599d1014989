"""The picture of the study of memory shows its measurements."""

import matplotlib.image
from benchmarks.figures.memory import draw_memory


def test_memory_has_a_panel_an_order_and_a_line_a_rank(tmp_path, figure_of):
    both = ["top", "bottom"]
    cases = [
        {"adapters": count, "rank": rank, "orders": orders, "peak_bytes": 1e6 * (count + rank), "model_bytes": 5e5}
        for count, orders in ((4, both), (0, both), (2, ["top"]))
        for rank in (8, 1)
    ]
    settings = {"orders": both, "ranks": [8, 1], "batch_size": 2, "max_length": 3}
    study = {"model": "tiny $x$", "device": "cpu", "settings": settings, "cases": cases}
    path = draw_memory(study, tmp_path / "memory.png")
    assert matplotlib.image.imread(path).ndim == 3 and [found.name for found in tmp_path.iterdir()] == ["memory.png"]
    top, bottom = figure_of(draw_memory, study).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in top.lines if line.get_marker() == "o"}
    assert lines == {"rank 1": [[0, 1], [2, 3], [4, 5]], "rank 8": [[0, 8], [2, 10], [4, 12]]}
    assert [line.get_xdata().tolist() for line in bottom.lines if line.get_marker() == "o"] == [[0, 4], [0, 4]]
    assert top.get_ylim()[0] == bottom.get_ylim()[0] == 0
