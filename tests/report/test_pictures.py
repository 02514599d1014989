"""The pictures as files."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from pictures import PNG, squares
from run_directories import write_run

from weightlora.report import read_run
from weightlora.report.pictures import draw_pictures, figures_of


@pytest.fixture
def run(tmp_path: Path):
    return read_run(write_run(tmp_path / "first", layers=2, steps=10, keep=4))


def test_each_picture_in_both_kinds(run):
    assert list(figures_of(run)) == ["selection", "scores", "loss"]
    assert draw_pictures(run, "png", ("loss",))["loss"].startswith(PNG)
    [svg] = draw_pictures(run, "svg", ("selection",)).values()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert draw_pictures(run, "svg", ("selection",)) == {"selection": svg}, "the same again"


def test_what_the_bound_kept_out_is_marked(run):
    figure = figures_of(run)["selection"]()
    dashed = [square for square in squares(figure.axes[0]) if square.get_linestyle() != "solid"]
    bounded = [(module.row, module.column) for module in run.modules if module.bounded]
    places = [(round(square.get_y() + 0.35), round(square.get_x() + 0.35)) for square in dashed]
    assert places and (len(places), set(places)) == (len(bounded), set(bounded))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["kept, rank 8", "disconnected", "kept out by the bound on parameters"]


def test_a_run_that_goes_on(tmp_path: Path):
    run = read_run(write_run(tmp_path, layers=2, steps=10, final=False))
    figure = figures_of(run)["selection"]()
    assert figure.get_suptitle() == "step 10 of 10: 14 of 14 adapters are trained"
    assert len({square.get_facecolor() for square in squares(figure.axes[0])}) == 14, "the scores of the last step"
    assert list(figures_of(run)) == ["selection", "scores", "loss"]
    (tmp_path / "log.jsonl").unlink()
    assert list(figures_of(read_run(tmp_path))) == ["selection", "scores"]
