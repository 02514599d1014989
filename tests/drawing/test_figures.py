"""Rows of means: what lies outside the axes is marked at their edge."""

import pytest

from weightlora.drawing.figures import contrast, draw_means, limits, new_figure, readable_on, save, set_rows


def test_an_interval_that_is_wider_than_the_axes_has_arrow_heads():
    axes = new_figure(4, 2).subplots()
    draw_means(axes, [({"mean": 0.5, "ci": 3.0}, [0.4, 0.6], True), ({"mean": 0.5, "ci": 0.05}, [0.45, 0.55], False)])
    cut = [(line.get_marker(), line.get_ydata()[0]) for line in axes.lines if line.get_marker() in ("<", ">")]
    assert cut == [("<", 0), (">", 0)]


def test_a_value_far_outside_does_not_squeeze_the_others():
    low, high = limits([0.4, 0.41, 0.42, 0.43, 0.44] * 3 + [9.0])
    assert low < 0.4 and 0.44 < high < 1
    assert limits([0.0]) == (-1.0, 1.0) and limits([0.5]) == (pytest.approx(0.495), pytest.approx(0.505))


def test_ink_has_more_contrast_than_the_other_one():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5
    assert [readable_on(colour) for colour in ("black", (1, 1, 1, 1), "#747474", "#777777")] == [
        "#ffffff",
        "#000000",
        "#ffffff",
        "#000000",
    ]


def test_a_figure_is_written(tmp_path):
    figure = new_figure(3, 2)
    set_rows(figure.subplots(), ["$a$", "b"])
    assert save(figure, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
