"""Loss against a cost: one panel a task, lines and points where they belong."""

from functools import partial

import pytest
from benchmarks.figures.lines import draw_lines
from benchmarks.pages.points import Point

LINES = {"ours": [Point(0.9, {0: 0.01, 1: 0.03}), Point(0.5, {0: 0.03, 1: 0.05})], "chance": [Point(0.5, {0: 0.05})]}
POINTS = {"all": Point(1.0, {0: 0.0})}
DRAW = partial(draw_lines, cost="step time")


def test_each_panel_has_its_lines_by_step_time_and_its_points(figure_of):
    first, second = figure_of(DRAW, {"a $x$": (LINES, POINTS), "mean": (LINES, {})}).axes
    assert (first.get_title(), second.get_title()) == ("a $x$", "mean")
    assert (first.get_xlabel(), first.get_xscale()) == ("step time", "linear")
    drawn = [container.lines[0].get_xydata().tolist() for container in first.containers]
    assert drawn == [[[0.5, pytest.approx(0.04)], [0.9, pytest.approx(0.02)]], [[0.5, 0.05]]]
    [star] = [line for line in first.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[1.0, 0.0]]
    assert first.get_ylim()[0] < 0 < 0.05 < first.get_ylim()[1]
    assert len(second.containers) == 2 and not [line for line in second.lines if line.get_marker() == "*"]


def test_the_legend_names_all_of_them_once(figure_of):
    figure = figure_of(DRAW, {"a": (LINES, POINTS), "b": (LINES, POINTS)})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "chance", "all"]


def test_with_ticks_the_axis_is_logarithmic(figure_of):
    [axes] = figure_of(partial(draw_lines, cost="adapters", ticks=(1, 3)), {"a": (LINES, POINTS)}).axes
    assert axes.get_xscale() == "log" and [text.get_text() for text in axes.get_xticklabels()] == ["1", "3"]
