"""Paired differences: one panel per task, marks where they belong."""

from benchmarks.figures.differences import draw_differences
from pictures import labels, means


def test_differences_have_a_panel_a_task_with_zero_inside(figure_of):
    found = {
        "told": ({"mean": -0.02, "ci": 0.01}, [-0.025, -0.015]),
        "not": ({"mean": -0.01, "ci": 0.02}, [0.0, -0.02]),
    }
    panels = {"a": found, "b": {"told": ({}, []), "not": ({"mean": 0.2, "ci": None}, [0.2])}}
    one, other = figure_of(draw_differences, panels, "loss").axes
    assert labels(one) == ["told", "not"] and (one.get_title(), other.get_title()) == ("a", "b")
    assert means(one) == [(0, -0.02, True), (1, -0.01, False)]
    assert means(other) == [(1, 0.2, False)], "the row without differences is empty"
    assert all(axes.get_xlim()[0] < 0 < axes.get_xlim()[1] for axes in (one, other))
