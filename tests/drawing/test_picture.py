import json
from pathlib import Path

import matplotlib.image
import pytest
from pictures import BERT, LLAMA, squares, texts

from weightlora.drawing.picture import draw_selection, selection_figure


def selection(names: list[str], kept: list[str], ranks: dict[str, int] | None = None, scored: bool = True) -> dict:
    adapters = [
        {
            "name": name,
            "kind": "module",
            "kept": name in kept,
            "score": float(index) if scored else None,
            "omega": float(name in kept),
            "rank": (ranks or {}).get(name, 8) if name in kept else None,
            "scaling": 4.0 if name in kept else None,
            "parameters": 100,
        }
        for index, name in enumerate(names)
    ]
    before, after = 100 * len(names), 100 * len(kept)
    return {
        "format": 1,
        "config": {"selection": "credit"},
        "step": 60,
        "adapters": adapters,
        "trainable_parameters": {"before": before, "after": after},
    }


def write(directory: Path, content: object) -> Path:
    (directory / "selection.json").write_text(json.dumps(content))
    return directory


def test_kept_cells_are_framed_and_marked():
    kept = [BERT[1], BERT[6]]
    figure = selection_figure(selection(BERT, kept))
    framed = [square for square in squares(figure.axes[0]) if square.get_linewidth() > 2]
    centres = [
        (square.get_y() + square.get_height() / 2, square.get_x() + square.get_width() / 2) for square in framed
    ]
    assert len(squares(figure.axes[0])) == 12
    assert centres == [pytest.approx((1, 0)), pytest.approx((2, 1))]
    assert texts(figure.axes[0]) == ["●", "●"]
    assert len({square.get_facecolor() for square in squares(figure.axes[0])}) == 12  # a colour a score
    assert figure.get_suptitle() == "2 of 12 LoRA adapters kept\nadapter parameters 1,200 → 200"
    assert figure.axes[1].get_ylabel() == "update credit"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kept, rank 8", "disconnected"]


def test_ranks_are_printed_where_they_differ():
    figure = selection_figure(selection(BERT, [BERT[1], BERT[6]], ranks={BERT[6]: 32}))
    assert texts(figure.axes[0]) == ["8", "32"]
    assert figure.legends[0].get_texts()[0].get_text() == "kept, with its rank"


def test_without_scores_there_is_no_colour_bar():
    figure = selection_figure(selection(BERT, BERT[:2], scored=False))
    assert len(figure.axes) == 1
    assert len({square.get_facecolor() for square in squares(figure.axes[0])}) == 1


@pytest.mark.parametrize(("names", "widest"), [(BERT, 1200), (LLAMA, 2400)])
def test_the_picture_is_written_whole(tmp_path: Path, names: list[str], widest: int):
    write(tmp_path, selection(names, names[::5]))
    assert draw_selection(tmp_path) == tmp_path / "selection.png"
    height, width = matplotlib.image.imread(tmp_path / "selection.png").shape[:2]
    assert 300 < height < width < widest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["selection.json", "selection.png"]


def test_what_is_no_selection_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot read a selection"):
        draw_selection(tmp_path)
    with pytest.raises(ValueError, match="lists no adapters"):
        draw_selection(write(tmp_path, {"adapters": []}))
    (tmp_path / "selection.json").write_text("{")
    with pytest.raises(ValueError, match="cannot read a selection"):
        draw_selection(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["selection.json"]
