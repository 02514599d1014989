"""A merged model is an ordinary one with the outputs of the adapted base, and its tokenizer."""

import shutil

import pytest
import torch
from exports import CASES, logits, saved
from models import save_tokenizer, tiny_llama
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from weightlora.errors import ModelError
from weightlora.export.base import Base
from weightlora.export.merged import write_merged
from weightlora.export.source import read_source


def merge(adapter, directory, dtype=None, compare=True, base=None):
    source = read_source(adapter, base)
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


def test_what_transformers_keeps_in_float32_is_not_rounded(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "head_dim": 8}
    counts = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "n_routed_experts": 4}
    base = Glm4MoeForCausalLM(Glm4MoeConfig(vocab_size=50, num_experts_per_tok=2, n_group=1, **sizes, **counts))
    bias = torch.tensor([13.0312, 13.0313, 13.0314, 13.0309])  # one number in bfloat16
    base.to(torch.bfloat16).model.layers[1].mlp.gate.e_score_correction_bias = bias
    base.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config)
    model.save_pretrained(tmp_path / "adapter")
    dtype, _ = merge(tmp_path / "adapter", tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert dtype == torch.bfloat16 == weights["model.layers.0.self_attn.q_proj.weight"].dtype
    torch.testing.assert_close(weights["model.layers.1.mlp.gate.e_score_correction_bias"], bias, rtol=0, atol=0)


def test_the_tokenizer_goes_along(tmp_path):
    adapter = saved("gates")
    save_tokenizer(tmp_path / "base", ["film"])
    tiny_llama().save_pretrained(tmp_path / "base")
    (tmp_path / "out").mkdir()
    assert merge(adapter, tmp_path / "out", compare=False, base=str(tmp_path / "base"))[1] is None
    assert "film" in AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()


def test_no_empty_tokenizer_is_made_of_a_base_without_one(tmp_path):
    config = Qwen2Config(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    base = Qwen2ForCausalLM(config)
    base.save_pretrained(tmp_path / "base")
    model = get_peft_model(
        Qwen2ForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    model.save_pretrained(tmp_path / "adapter")
    merge(tmp_path / "adapter", tmp_path / "out", compare=False)
    assert not list((tmp_path / "out").glob("tokenizer*"))


def test_the_settings_of_the_image_processor_go_along(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes))
    base.save_pretrained(tmp_path / "base")
    settings = tmp_path / "base" / "preprocessor_config.json"
    settings.write_text('{"image_processor_type": "ViTImageProcessor"}', encoding="utf-8")
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"]))
    model.save_pretrained(tmp_path / "adapter")
    merge(tmp_path / "adapter", tmp_path / "out", compare=False, base=str(tmp_path / "base"))
    assert (tmp_path / "out" / settings.name).read_bytes() == settings.read_bytes()


@pytest.mark.parametrize("compare", [True, False])
def test_a_dtype_that_cannot_hold_a_weight_is_refused(compare, tmp_path):
    base = tiny_llama()
    base.model.layers[0].mlp.down_proj.weight.data[0, 0] = 7e4
    base.save_pretrained(tmp_path / "base")
    adapter = saved("gates")
    with pytest.raises(ModelError, match=r"'model.layers.0.mlp.down_proj.weight' has values that float16 cannot hold"):
        merge(adapter, tmp_path / "out", torch.float16, compare, base=str(tmp_path / "base"))


def test_a_tensor_without_a_place_is_not_lost(tmp_path):
    adapter = shutil.copytree(saved("gates"), tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_new_scale"] = torch.ones(1)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"no place for the tensor '.*lora_new_scale' of the adapter"):
        merge(adapter, tmp_path / "out", compare=False, base=str(saved("gates").parent / "base"))


@pytest.mark.parametrize(
    ("settings", "weight", "message"),
    [
        (
            {"lora_bias": True},
            1.0,
            r"the base layer has no bias\): no other profile keeps it, so load it with PEFT\.$",
        ),
        ({}, float("inf"), r"^PEFT cannot merge this adapter into its base \(.*\): choose profile 'portable'\.$"),
    ],
)
def test_what_peft_cannot_merge_is_sent_to_a_profile_that_keeps_it(settings, weight, message, tmp_path):
    base = tiny_llama()
    base.model.layers[0].self_attn.q_proj.weight.data[0, 0] = weight
    base.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match=message):
        merge(tmp_path / "adapter", tmp_path / "out", compare=False, base=str(tmp_path / "base"))


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
