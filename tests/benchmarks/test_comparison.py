"""The pictures show what they are given: rows in order, marks where they belong, files whole or not at all."""

import subprocess
import sys

import pytest
from benchmarks.figures import comparison
from benchmarks.figures.comparison import draw_differences, draw_headroom

from weightlora.report.figures import write_whole

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def figure_of(monkeypatch, tmp_path):
    """Calls a drawing function and returns the figure that it would have written."""
    kept = []
    monkeypatch.setattr(comparison, "save", lambda figure, path: kept.append(figure))

    def call(draw, *arguments):
        draw(*arguments, tmp_path / "picture.png")
        return kept.pop()

    return call


def means(axes):
    """(row, loss, whether filled) of every diamond."""
    lines = [line for line in axes.lines if line.get_marker() == "D"]
    return sorted((line.get_ydata()[0], line.get_xdata()[0], line.get_markerfacecolor() != "white") for line in lines)


def texts(axes):
    return [text.get_text().strip() for text in axes.texts]


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


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
    with pytest.raises(ValueError, match="no differences to draw"):
        draw_differences({}, "loss", "nowhere.png")


def test_headroom_shows_the_distribution_and_where_methods_stand(figure_of):
    losses = [0.40, 0.42, 0.43, 0.44, 0.46]
    methods = {"worse": {"loss": 0.45, "percentile": 80.0}, "better": {"loss": 0.39, "percentile": 0.0}}
    distribution, standing = figure_of(draw_headroom, "t", losses, methods).axes
    assert sum(bar.get_height() for bar in distribution.containers[0]) == 5
    assert list(distribution.lines[0].get_xdata()) == losses
    assert labels(standing) == ["better", "worse"]
    assert means(standing) == [(0, 0.39, True), (1, 0.45, True)]
    assert texts(standing)[:2] == ["0 %", "80 %"]
    assert [line.get_xdata()[0] for line in standing.lines if list(line.get_ydata()) == [0, 1]] == [0.43]  # the median


def test_the_whole_distribution_is_visible_but_not_every_method(figure_of):
    losses = [0.40 + 0.001 * i for i in range(50)] + [0.7]
    methods = {"a": {"loss": 0.42, "percentile": 40.0}, "far": {"loss": 3.0, "percentile": 100.0}}
    _, standing = figure_of(draw_headroom, "t", losses, methods).axes
    assert 0.7 <= standing.get_xlim()[1] < 1
    assert "3.000 \u25b6" in texts(standing)


@pytest.mark.filterwarnings("error")
def test_odd_input_draws(tmp_path):
    assert draw_headroom("$t$", [0.5, 0.5], {}, tmp_path / "b.png").read_bytes().startswith(PNG)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.png"]


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no random subsets of t"):
        draw_headroom("t", [], {}, tmp_path / "a.png")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, lambda unfinished: unfinished.write_text("old"))

    def fail(unfinished):
        unfinished.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_matplotlib_loads_when_something_is_drawn_and_pyplot_never(tmp_path):
    code = (
        "import sys; from benchmarks.figures.comparison import draw_headroom; print('matplotlib' in sys.modules)\n"
        f"draw_headroom('t', [0.5, 0.6], {{}}, {str(tmp_path / 'a.png')!r}); print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
