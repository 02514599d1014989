"""Headroom: the losses of random subsets, and where methods stand among them."""

import pytest
from benchmarks.figures.headroom import draw_headroom
from pictures import PNG, labels, means, texts
from processes import fork_server


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


def test_matplotlib_loads_when_something_is_drawn_and_pyplot_never(tmp_path):
    code = (
        "import sys; from benchmarks.figures.headroom import draw_headroom; print('matplotlib' in sys.modules)\n"
        f"draw_headroom('t', [0.5, 0.6], {{}}, {str(tmp_path / 'a.png')!r}); print('matplotlib.pyplot' in sys.modules)"
    )
    assert fork_server().run("-c", code).stdout.split() == ["False", "False"]
