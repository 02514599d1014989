"""The section of the model card, on a selection that is under way and on one that is over."""

import html
from types import SimpleNamespace

import pytest
from loops import CREDIT
from models import adamw, batch, lora_bert, train
from runs import build

from weightlora import WeightLora, WeightLoraConfig
from weightlora.errors import DataError
from weightlora.trainers.card import BEGIN, END, check_card, describe_in_card, section


class Named:
    """What the section reads of a selection."""

    phase, step_count, kept, names = "train", 4, None, ("a", "b")

    def __init__(self, name: str) -> None:
        self.config = WeightLoraConfig(**CREDIT)
        self.adapters = [SimpleNamespace(name=name, rank=2, scaling=2.0, rslora=False)]
        self.scores = {name: 0.5}


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "a\nb",
        "a\r\nb",
        "a\u2028b",
        "a\u0085b",
        "*a*.b",
        "`a`",
        "<!-- /weightlora -->",
        "[a](b)",
        "a\\",
        "__a__.b",
    ],
)
def test_a_name_of_any_characters_is_one_cell_of_the_table(name):
    text = section(Named(name))
    assert text.count(END) == 1
    (row,) = [line for line in text.splitlines() if "<code>" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == ["2", "0.5"]
    written = cells[0].removeprefix("<code>").removesuffix("</code>")
    assert html.unescape(written) == name or name == "a\u0085b"  # HTML reads &#133; as an ellipsis
    assert not set(written) & set("|\n\r\u2028\u0085*`<[\\") and "__" not in written


def test_an_ordinary_name_is_written_as_it_is():
    assert "<code>model.layers.0.self_attn.q_proj</code>" in section(Named("model.layers.0.self_attn.q_proj"))


def make() -> tuple[WeightLora, object]:
    model = lora_bert()
    optimizer = adamw(model)
    return WeightLora(model, optimizer, WeightLoraConfig(**CREDIT)), optimizer


def test_before_the_choice_the_card_says_that_it_is_not_made_yet():
    selector, optimizer = make()
    train(selector.model, optimizer, selector, steps=2)
    text = section(selector)
    assert "**The choice is not made yet.**" in text and "after 2 of 4 selection steps" in text
    assert text.count("| <code>") == 12


def test_the_card_says_that_a_probe_chose_before_the_first_step():
    model = lora_bert()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(keep=3))
    selector.probe([batch()])
    assert "3 of 12 LoRA adapters were kept by [WeightLoRA]" in section(selector)
    assert "(`selection='gradient'`) before the first step:" in section(selector)


def test_after_it_the_card_lists_what_was_kept_once_and_leaves_the_rest_alone(tmp_path):
    selector, optimizer = make()
    (tmp_path / "README.md").write_text("# My adapter\n\nA sentence.\n")
    for steps in (2, 2, 1):
        train(selector.model, optimizer, selector, steps=steps)
        describe_in_card(selector, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# My adapter\n\nA sentence.\n") and text.count(BEGIN) == 1
    assert "3 of 12 LoRA adapters were kept" in text and "not made yet" not in text
    assert [line.split("</code>")[0][len("| <code>") :] for line in text.splitlines() if "<code>" in line] == (
        selector.kept
    )


@pytest.mark.parametrize("content", ["Größe".encode("latin-1"), b"---\na: [\n---\n", b"---\njust a text\n---\n"])
def test_a_readme_that_peft_cannot_read_is_found_before_the_first_step(tmp_path, content):
    """It would end the run where the model is saved. That of a checkpoint which is written anew is deleted."""
    (tmp_path / "README.md").write_text("# Mine\n\nSome text, and no metadata.\n")
    check_card(tmp_path)
    (tmp_path / "README.md").write_bytes(content)
    trainer = build(tmp_path, {"keep": 3, "select_steps": 3})
    with pytest.raises(DataError, match=r"README\.md is no model card \(.*: rename it, or give another"):
        trainer.train()
    assert trainer.state.global_step == 0
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "README.md").rename(card := tmp_path / "checkpoint-1" / "README.md")
    build(tmp_path, {"keep": 3, "select_steps": 3}).train()
    assert BEGIN in card.read_text(encoding="utf-8")


def test_without_a_card_none_is_created(tmp_path):
    selector, _ = make()
    describe_in_card(selector, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_card_points_to_the_export_where_servers_would_misread_the_adapter():
    one = Named("a")
    assert "weightlora export" not in section(one)
    one.adapters.append(SimpleNamespace(name="b", rank=4, scaling=2.0, rslora=False))
    one.scores["b"] = 0.1
    lines = section(one).splitlines()
    assert "`weightlora export ADAPTER_DIR OUT_DIR`" in lines[-2] and lines[-3] == ""
    one.phase, one.config = "select", WeightLoraConfig(**CREDIT)
    assert "weightlora export" not in section(one)
