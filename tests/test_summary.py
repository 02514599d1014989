"""What a selector shows of itself."""

import warnings

import pytest
from models import batch, train
from selections import start

from weightlora.summary import by_kind


@pytest.fixture
def selector():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, optimizer, selector = start(keep=3, select_steps=2)
    train(model, optimizer, selector, steps=1)
    selector.rest = lambda: train(model, optimizer, selector, steps=2, start=1)
    return selector


def test_repr_tells_where_the_selection_is(selector):
    assert repr(selector) == "WeightLora(selection='credit', phase='select', step 1 of 2, 12 of 12 adapters)"
    selector.rest()
    assert repr(selector) == "WeightLora(selection='credit', phase='train', step 2 of 2, 3 of 12 adapters)"


def test_a_choice_before_the_first_step_speaks_of_no_selection_steps():
    selector = start(keep=3)[2]
    assert repr(selector) == "WeightLora(selection='gradient', phase='select', 12 of 12 adapters)"
    assert selector.summary().text == "12 of 12 LoRA adapters are active: the choice is made before the first step."
    selector.probe([batch()])
    assert repr(selector) == "WeightLora(selection='gradient', phase='train', 3 of 12 adapters)"


def test_the_summary_is_a_list_of_rows(selector):
    assert selector.summary().text == "12 of 12 LoRA adapters are active after 1 of 2 selection steps."
    selector.rest()
    rows = selector.summary()
    assert [row["name"] for row in rows] == selector.names
    assert [row["name"] for row in rows if row["kept"]] == selector.kept
    assert [row["score"] for row in rows] == list(selector.scores.values())
    assert [row["rank"] for row in rows if not row["kept"]] == [None] * 9
    left = sum(adapter.size for adapter in selector.adapters)
    total = sum(selector.sizes.values())
    share = f"with {left:,} of {total:,} parameters ({left / total:.0%}): "
    assert rows.text.startswith(f"WeightLoRA kept 3 of 12 adapters, {share}") and "layer" in rows.text


def test_the_summary_is_a_table_in_terminal_and_notebook(selector):
    selector.rest()
    printed, shown = str(selector.summary()), selector._repr_html_()
    assert printed.startswith("WeightLoRA kept 3 of 12 adapters") and all(name in printed for name in selector.names)
    assert shown.count("<tr>") == 13 and shown.count(">yes<") == 3


def test_names_are_escaped_in_html(selector):
    rows = selector.summary()
    rows[0]["name"] = "<script>alert(1)</script>"
    assert "<script>" not in rows._repr_html_() and "&lt;script&gt;" in rows._repr_html_()


def test_the_choice_is_logged_once(selector, caplog):
    with caplog.at_level("INFO", "weightlora"):
        selector.rest()
    assert [record.message for record in caplog.records if "kept 3 of 12" in record.message] == [
        selector.summary().text
    ]


def test_names_are_grouped_by_kind_and_layer():
    names = [f"h.{layer}.attn.value" for layer in (0, 1, 2, 5)] + ["h.5.mlp", "pooler.dense"]
    assert by_kind(names, names) == "attn.value in layers 0-2, 5; mlp in layer 5; pooler.dense"
    assert by_kind(["0", "2"], ["0", "1", "2"]) == "layers 0, 2", "of an nn.Sequential"


def test_a_module_outside_the_layers_with_the_name_of_one_in_them_is_listed():
    names = ["blocks.0.fc", "blocks.1.fc", "fc"]
    assert by_kind(names, names) == "fc in layers 0-1; fc"


def test_a_short_name_fits_only_one_of_the_modules():
    names = ["h.1.attn.dense", "h.1.mlp.dense"]
    assert by_kind(names[1:], names) == "mlp.dense in layer 1"
