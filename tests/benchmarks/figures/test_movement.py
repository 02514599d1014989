"""The picture of moving evidence: shares of the credit, stacked over the steps in which they were gained."""

import numpy as np
from benchmarks.figures.movement import Movement, draw_movement
from pictures import PNG

SHARES = np.array([[0.5, 0.25], [0.25, 0.25], [0.25, 0.5]])
MOVED = Movement([0, 2, 10], SHARES, decides_at=2)


def test_thirds_are_stacked_over_their_steps(figure_of):
    figure = figure_of(draw_movement, {"one": MOVED, "$two$": MOVED._replace(edges=[0, 4, 6], decides_at=5)})
    one, two = figure.axes
    assert (one.get_title(), two.get_title()) == ("one", "$two$")
    lower, middle, upper = one.containers
    assert [bars.get_label() for bars in one.containers] == ["lower", "middle", "upper"]
    for bars, bottoms, heights in ((lower, [0, 0], SHARES[0]), (middle, SHARES[0], SHARES[1])):
        assert [bar.get_y() for bar in bars] == list(bottoms)
        assert [bar.get_height() for bar in bars] == list(heights)
    assert [bar.get_y() + bar.get_height() for bar in upper] == [1, 1]
    assert [(bar.get_x(), bar.get_width()) for bar in upper] == [(0, 2), (2, 8)]
    assert one.get_xlim() == (0, 10) and two.get_xlim() == (0, 6)
    assert [axes.lines[0].get_xdata()[0] for axes in (one, two)] == [2, 5]


def test_the_legend_names_the_thirds_and_the_line_once(figure_of):
    [legend] = figure_of(draw_movement, {"one": MOVED, "two": MOVED}).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert sorted(names) == sorted(
        [*(f"{part} third of the layers" for part in ("lower", "middle", "upper")), "update credit decides"]
    )


def test_the_picture_is_written(tmp_path):
    assert draw_movement({"one": MOVED}, tmp_path / "movement.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["movement.png"]
