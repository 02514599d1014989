"""A merged model is an ordinary one with the outputs of the adapted base, and its tokenizer."""

import pytest
import torch
from exports import CASES, logits, saved
from models import save_tokenizer, tiny_llama
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from weightlora.errors import ModelError
from weightlora.export.base import Base
from weightlora.export.merged import write_merged
from weightlora.export.source import read_source


def merge(adapter, directory, dtype=None, compare=True, base=None):
    source = read_source(adapter, lambda config: Base(config, base).places(config))
    return write_merged(source, Base(source.config, base, source.heads), directory, dtype, compare)


@pytest.mark.parametrize("name", ["rsLoRA with gates and ranks", "an embedding", "experts"])
def test_the_outputs_are_those_of_the_adapted_base(name, tmp_path):
    dtype, close = merge(saved(name), tmp_path)
    assert dtype == torch.float32 and close.difference < 1e-6 and close.effect > 0.01
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(None, loaded), logits(saved(name), CASES[name].base()), rtol=0, atol=1e-5)


def test_dora_and_biases_are_merged_too(tmp_path):
    for name, settings in {"dora": {"use_dora": True}, "bias": {"bias": "all"}}.items():
        tiny_llama().save_pretrained(tmp_path / "base")
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings)
        model = get_peft_model(tiny_llama(), config)
        torch.nn.init.normal_(model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight)
        model.save_pretrained(tmp_path / name)
        (tmp_path / f"merged {name}").mkdir()
        _, close = merge(tmp_path / name, tmp_path / f"merged {name}", base=str(tmp_path / "base"))
        assert close.difference < 1e-6 < close.effect


def test_the_dtype_may_be_chosen(tmp_path):
    dtype, close = merge(saved("gates"), tmp_path, torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert dtype == loaded.dtype == torch.bfloat16
    assert 1e-6 < close.difference < 0.05 < close.effect


def test_the_tokenizer_goes_along(tmp_path):
    adapter = saved("gates")
    save_tokenizer(tmp_path / "base", ["film"])
    tiny_llama().save_pretrained(tmp_path / "base")
    (tmp_path / "out").mkdir()
    assert merge(adapter, tmp_path / "out", compare=False, base=str(tmp_path / "base"))[1] is None
    assert "film" in AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()


@pytest.mark.parametrize("compare", [True, False])
@pytest.mark.parametrize(("target", "other"), [("model.embed_tokens", "lm_head"), ("lm_head", "model.embed_tokens")])
def test_an_adapter_on_a_tied_weight_is_refused(target, other, compare, tmp_path):
    tiny_llama(tied=True).save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM")
    get_peft_model(tiny_llama(tied=True), config).save_pretrained(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=f"^'{target}' and '{other}' share a weight, .* choose profile 'portable'"):
        merge(tmp_path / "adapter", tmp_path / "out", compare=compare, base=str(tmp_path / "base"))
    assert not list((tmp_path / "out").iterdir())
