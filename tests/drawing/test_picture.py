import pytest
from pictures import BERT, squares, texts

from weightlora.drawing.picture import selection_figure


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
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kept, rank 8", "dropped"]


def test_before_the_choice_adapters_are_trained():
    figure = selection_figure(selection(BERT, BERT) | {"phase": "select", "config": {"selection": ["credit"]}})
    assert figure.get_suptitle().startswith("12 of 12 LoRA adapters trained\n")
    assert figure.legends[0].get_texts()[0].get_text() == "trained, rank 8"
    assert figure.axes[1].get_ylabel() == "score", "a rule that is none"


def test_ranks_are_printed_where_they_differ():
    figure = selection_figure(selection(BERT, [BERT[1], BERT[6]], ranks={BERT[6]: 32}))
    assert texts(figure.axes[0]) == ["8", "32"]
    assert figure.legends[0].get_texts()[0].get_text() == "kept, with its rank"


def test_without_scores_there_is_no_colour_bar():
    figure = selection_figure(selection(BERT, BERT[:2], scored=False))
    assert len(figure.axes) == 1
    assert len({square.get_facecolor() for square in squares(figure.axes[0])}) == 1
