"""A tokenizer, its chat templates and a processor go along with an adapter and with a merged model."""

import warnings

import pytest
from models import save_tokenizer
from transformers import AutoTokenizer

from weightlora.export.beside import copy_beside, save_beside


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def template(directory, text: str) -> None:
    (directory / "chat_template.jinja").write_text(text, encoding="utf-8")


def test_what_belongs_to_an_adapter_is_copied_and_its_weights_are_not(tmp_path, out):
    adapter = tmp_path / "adapter"
    save_tokenizer(adapter, ["film"])
    template(adapter, "TRAINED")
    (adapter / "additional_chat_templates").mkdir()
    (adapter / "additional_chat_templates" / "tool_use.jinja").write_text("TOOLS", encoding="utf-8")
    for name in ("README.md", "preprocessor_config.json", "adapter_model.safetensors", "optimizer.pt"):
        (adapter / name).write_text(name, encoding="utf-8")
    copy_beside(adapter, out)
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md", "preprocessor_config.json"),
        "additional_chat_templates/tool_use.jinja",
    }
    assert AutoTokenizer.from_pretrained(out).chat_template == {"default": "TRAINED", "tool_use": "TOOLS"}


def test_an_adapter_with_no_more_than_a_template_has_the_tokenizer_of_its_base(tmp_path, out):
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    save_tokenizer(base, ["film"])
    template(base, "BASE")
    adapter.mkdir()
    save_beside(adapter, str(base), "main", out)
    assert AutoTokenizer.from_pretrained(out).chat_template == "BASE"
    template(adapter, "TRAINED")
    save_beside(adapter, str(base), "main", out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == "TRAINED" and "film" in tokenizer.get_vocab()
    (adapter / "additional_chat_templates").mkdir()
    (adapter / "additional_chat_templates" / "tool_use.jinja").write_text("TOOLS", encoding="utf-8")
    for _ in range(2):  # there may be some of the base
        save_beside(adapter, str(base), "main", out)
    assert AutoTokenizer.from_pretrained(out).chat_template == {"default": "TRAINED", "tool_use": "TOOLS"}


def test_the_tokenizer_of_the_adapter_comes_before_that_of_the_base(tmp_path, out):
    save_tokenizer(tmp_path / "adapter", ["new"])
    save_tokenizer(tmp_path / "base", ["old"])
    save_beside(tmp_path / "adapter", str(tmp_path / "base"), "main", out)
    assert "new" in AutoTokenizer.from_pretrained(out).get_vocab()


def test_a_tokenizer_that_cannot_be_read_is_warned_of(tmp_path, out):
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    adapter.mkdir()
    base.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_beside(adapter, str(base), "main", out)  # there is none, as for a model of images
        save_beside(adapter, None, "main", out)
    save_tokenizer(base, ["film"])
    text = (base / "tokenizer.json").read_text(encoding="utf-8")
    (base / "tokenizer.json").write_text(text[:-20], encoding="utf-8")
    with pytest.warns(
        UserWarning, match=r"^the tokenizer in .*base cannot be read \(.+\), so the export is without it"
    ):
        save_beside(adapter, str(base), "main", out)
    assert not list(out.iterdir())
