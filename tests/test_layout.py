"""Each module has a place of its own in a grid of layers and kinds."""

import pytest
from pictures import BERT, BERT_TYPES, LLAMA

from weightlora.layout import lay_out


def test_layers_are_columns_and_types_rows():
    grid = lay_out(BERT)
    assert grid.rows == BERT_TYPES
    assert grid.columns == ["0", "1", "2"]
    assert grid.cells == [(row, column) for column in range(3) for row in range(4)]


def test_layers_are_in_numerical_order():
    assert lay_out(["h.10.q", "h.9.q", "h.2.q"]) == (["q"], ["2", "9", "10"], [(0, 2), (0, 1), (0, 0)])


def test_two_stacks_have_rows_of_their_own():
    grid = lay_out(["model.encoder.layers.0.fc1", "model.decoder.layers.0.fc1", "model.decoder.layers.1.fc1"])
    assert grid.rows == ["encoder.layers.*.fc1", "decoder.layers.*.fc1"]
    assert grid.cells == [(0, 0), (1, 0), (1, 1)]


def test_modules_outside_layers_have_rows_and_a_column_of_their_own():
    grid = lay_out(["model.embed", "model.layers.0.q", "model.layers.1.q", "lm_head", "q"])
    assert grid == (["model.embed", "q", "lm_head", "q"], ["0", "1", "-"], [(0, 2), (1, 0), (1, 1), (2, 2), (3, 2)])


def test_the_place_of_a_model_in_a_container_is_no_layer():
    """As in a SentenceTransformer, which may have a linear layer behind the model."""
    names = ["0.model.layer.0.q", "0.model.layer.1.q"]
    assert lay_out(names) == (["q"], ["0", "1"], [(0, 0), (0, 1)])
    both = lay_out([*names, "2.linear"])
    assert both == (["0.model.layer.*.q", "linear"], ["0", "1", "2"], [(0, 0), (0, 1), (1, 2)])


@pytest.mark.parametrize(
    "names", [BERT, LLAMA, ["h.0.a.b", "h.a.0.b", "h.a.b"], ["l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w"]]
)
def test_no_two_adapters_share_a_cell(names: list[str]):
    assert len(set(lay_out(names).cells)) == len(names)
