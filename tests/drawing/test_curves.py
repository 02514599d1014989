"""Curves: which lines are drawn, in which colours, and where the decisions are."""

import pytest
from matplotlib.colors import same_color

from weightlora.drawing.curves import LINE_ID, PAPER, frontier_figure, log_figure, scores_figure


def test_each_module_has_a_line_and_the_kept_ones_are_on_top():
    scores = [[0.0, 0.5, 1.0], [0.1, 0.7, 2.0]]
    axes = scores_figure([1, 5], scores, [True, False, True], [5], "update credit").axes[0]
    curves = [line for line in axes.lines if line.get_gid()]
    assert [line.get_gid() for line in curves] == [LINE_ID.format(place) for place in (1, 0, 2)]
    assert [list(line.get_ydata()) for line in curves] == [[0.5, 0.7], [0.0, 0.1], [1.0, 2.0]]
    assert [same_color(line.get_color(), PAPER.kept) for line in curves] == [False, True, True]
    assert [line.get_xdata()[0] for line in axes.lines if not line.get_gid()] == [5]
    assert axes.get_ylabel() == "update credit"


def test_the_legend_says_what_is_there():
    def texts(figure) -> list[str]:
        return [text.get_text() for text in figure.legends[0].get_texts()]

    assert texts(scores_figure([1, 2], [[1.0, 2.0]] * 2, [True, False], [2])) == ["kept", "dropped", "decision at 2"]
    assert texts(scores_figure([1, 2], [[1.0]] * 2, [True], [])) == ["kept"]
    many = log_figure({"a$b$": [(1, 0.5)]}, [1, 2, 3, 4, 5])
    assert texts(many) == ["a$b$", "decision at 5 steps"]
    assert not any(text.get_parse_math() for text in many.legends[0].get_texts())


@pytest.mark.parametrize("points", [1, 40])
def test_few_points_are_marked(points: int):
    [line] = log_figure({"training": [(step, 1.0) for step in range(points)]}, []).axes[0].lines
    assert (line.get_marker() == "o") == (points == 1)


def test_the_budgets_are_a_curve_and_the_choice_is_marked():
    axes = frontier_figure([(0.2, 0.1, 1), (0.5, 0.6, 4)], (0.45, 0.5), 0.48, "step time").axes[0]
    curve, choice, budget = axes.lines
    assert list(zip(*curve.get_data(), strict=True)) == [(0.2, 0.1), (0.5, 0.6)]
    assert [*choice.get_data()] == [[0.45], [0.5]] and budget.get_xdata()[0] == 0.48
    assert [text.get_text() for text in axes.texts] == ["1", "4"] and axes.get_xlabel() == "step time"
