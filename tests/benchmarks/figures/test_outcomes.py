"""Runs that do not learn: a dot for each run, and how many there are in the name of the row."""

from benchmarks.figures.outcomes import draw_outcomes
from pictures import labels

from weightlora.drawing.figures import BLUE, ORANGE


def test_runs_that_do_not_learn_have_another_colour_and_are_counted(figure_of):
    figure = figure_of(draw_outcomes, {"one": [0.5, 0.7], "other": [0.8]}, 0.65, "accuracy")
    (axes,) = figure.axes
    assert labels(axes) == ["one: 1 of 2", "other: 0 of 1"] and figure.get_supxlabel() == "accuracy"
    dots = [(*line.get_xydata()[0].tolist(), line.get_color()) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [(0.5, 0, ORANGE), (0.7, 0, BLUE), (0.8, 1, BLUE)]
