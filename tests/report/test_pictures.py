"""The pictures as files."""

import json
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest
from pictures import squares
from run_directories import write_run

from weightlora.drawing.figures import encode
from weightlora.errors import DataError
from weightlora.report import draw_selection, read_run, render_page
from weightlora.report.pictures import figures_of


@pytest.fixture
def run(tmp_path: Path):
    return read_run(write_run(tmp_path / "first", layers=2, steps=10, keep=4))


def test_each_picture_is_the_same_in_a_second_drawing(run):
    assert list(figures_of(run)) == ["selection", "scores", "loss"]
    svg, again = (encode(figures_of(run)["selection"](), "svg") for _ in range(2))
    assert ElementTree.fromstring(svg).tag.endswith("svg") and svg == again


def test_what_the_bound_kept_out_is_marked(run):
    figure = figures_of(run)["selection"]()
    dashed = [square for square in squares(figure.axes[0]) if square.get_linestyle() != "solid"]
    bounded = [(module.row, module.column) for module in run.modules if module.bounded]
    places = [(round(square.get_y() + 0.35), round(square.get_x() + 0.35)) for square in dashed]
    assert places and (len(places), set(places)) == (len(bounded), set(bounded))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["kept, rank 8", "dropped", "kept out by the bound on parameters"]


def test_a_budget_of_time_is_named_where_it_decided(tmp_path: Path):
    directory = write_run(tmp_path / "fast", layers=2, steps=10, keep=4)
    values = json.loads((directory / "selection.json").read_text())
    values["config"] |= {"keep": None, "keep_step_time": 0.6}
    (directory / "selection.json").write_text(json.dumps(values))
    run = read_run(directory)
    labels = [text.get_text() for text in figures_of(run)["selection"]().legends[0].get_texts()]
    assert any(module.bounded for module in run.modules) and labels[-1] == "kept out by the budget of step time"
    page = render_page([run])
    assert "dropped by the budget of step time, in spite of its score" in page and "bound on parameters" not in page


def test_a_run_that_goes_on(tmp_path: Path):
    run = read_run(write_run(tmp_path, layers=2, steps=10, final=False))
    figure = figures_of(run)["selection"]()
    assert figure.get_suptitle() == "step 10 of 10: 14 of 14 adapters are trained"
    assert len({square.get_facecolor() for square in squares(figure.axes[0])}) == 14, "the scores of the last step"
    assert list(figures_of(run)) == ["selection", "scores", "loss"]
    (tmp_path / "log.jsonl").unlink()
    assert list(figures_of(read_run(tmp_path))) == ["selection", "scores"]


@pytest.mark.parametrize(("layers", "widest"), [(12, 1600), (30, 2400)])
def test_the_picture_is_written_whole(tmp_path: Path, layers: int, widest: int):
    write_run(tmp_path, layers=layers, steps=2, keep=4)
    before = {path.name for path in tmp_path.iterdir()}
    assert draw_selection(tmp_path) == tmp_path / "selection.png"
    height, width = matplotlib.image.imread(tmp_path / "selection.png").shape[:2]
    assert 300 < height < width < widest
    assert {path.name for path in tmp_path.iterdir()} - before == {"selection.png"}


def test_what_is_no_selection_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"is empty: a run writes selection\.json when"):
        draw_selection(tmp_path)
    (tmp_path / "selection.json").write_text('{"adapters": []}')
    with pytest.raises(DataError, match="lists no adapters"):
        draw_selection(tmp_path)
    (tmp_path / "selection.json").write_text("{")
    with pytest.raises(DataError, match=r"selection\.json is not whole JSON"):
        draw_selection(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["selection.json"]
