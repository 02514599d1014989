"""The picture of many choices: dark where an adapter was kept by many seeds."""

from benchmarks.figures.frequency import draw_shares
from pictures import PNG, squares

SHARES = {"m.0.q": 0.0, "m.0.k": 1.0, "m.1.q": 0.25, "m.1.k": 0.75}


def test_each_adapter_has_a_square_with_its_share(figure_of):
    figure = figure_of(draw_shares, "tiny $x$", SHARES, 4)
    grid, bar = figure.axes
    cells = squares(grid)
    centres = [(cell.get_x() + cell.get_width() / 2, cell.get_y() + cell.get_height() / 2) for cell in cells]
    assert [(round(x, 6), round(y, 6)) for x, y in centres] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    light = {name: sum(cell.get_facecolor()[:3]) for name, cell in zip(SHARES, cells, strict=True)}
    assert sorted(light, key=light.__getitem__) == ["m.0.k", "m.1.k", "m.1.q", "m.0.q"], "the most kept is darkest"
    assert [label.get_text() for label in grid.get_yticklabels()] == ["q", "k"]
    assert figure.get_suptitle() == "tiny $x$: 2 of 4 adapters kept"
    assert bar.get_ylabel() == "kept, share of 4 seeds"


def test_colours_span_all_shares_and_not_those_that_there_are(figure_of):
    half, most = (squares(figure_of(draw_shares, "t", dict.fromkeys("qk", s), 4).axes[0])[0] for s in (0.5, 1.0))
    assert sum(half.get_facecolor()[:3]) > sum(most.get_facecolor()[:3])


def test_the_picture_is_written(tmp_path):
    assert draw_shares("t", SHARES, 4, tmp_path / "kept.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]
