"""The files of mlx-lm, read by its rule (mlx_lm/tuner/lora.py 0.32.2): scale * (x lora_a) lora_b."""

import json

import pytest
import torch
from exports import CASES, EXPERTS_AND_HEADS, deltas, saved
from models import tiny_gemma3, tiny_llama
from peft import LoraConfig
from safetensors.torch import load_file

from weightlora.errors import ModelError
from weightlora.export.base import Base
from weightlora.export.mlx import named_for_mlx, write_mlx
from weightlora.export.pairs import Pair
from weightlora.export.source import read_source

NAMES = [name for name in CASES if name not in EXPERTS_AND_HEADS]


@pytest.mark.parametrize("name", NAMES)
def test_mlx_adds_the_same_to_every_weight(name, tmp_path):
    source = read_source(saved(name))
    write_mlx(source.pairs, tmp_path, torch.float32)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())["lora_parameters"]
    tensors = load_file(tmp_path / "adapters.safetensors")
    before = deltas(saved(name), CASES[name].base())
    assert settings["keys"] == [pair.name for pair in source.pairs] and len(tensors) == 2 * len(before)
    for module, delta in before.items():
        a, b = tensors[f"{module}.lora_a"], tensors[f"{module}.lora_b"]
        assert a.shape[1] == b.shape[0] == settings["rank"]
        after = settings["scale"] * (a @ b)
        embedding = module.endswith("embed_tokens")
        torch.testing.assert_close(after if embedding else after.T, delta, rtol=1e-5, atol=1e-5)


def test_the_config_is_the_one_of_full_names(tmp_path):
    source = read_source(saved("a few modules"))
    write_mlx(source.pairs, tmp_path, torch.float16)
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == {
        "fine_tune_type": "lora",
        "num_layers": 0,
        "lora_parameters": {
            "rank": 4,
            "scale": 1.0,
            "dropout": 0.0,
            "keys": [
                "model.layers.0.self_attn.q_proj",
                "model.layers.1.mlp.up_proj",
                "model.layers.1.self_attn.k_proj",
            ],
        },
    }
    assert {tensor.dtype for tensor in load_file(tmp_path / "adapters.safetensors").values()} == {torch.float16}


def pairs_of(names: list[str]) -> list[Pair]:
    return [Pair(name, name, "linear", torch.zeros(2, 4), torch.zeros(4, 2), 2, 1.0) for name in names]


def test_a_model_with_images_has_other_names_in_mlx_lm(tmp_path):
    base = Base(LoraConfig(base_model_name_or_path=str(tmp_path)))
    pairs = pairs_of(["model.language_model.layers.0.mlp.up_proj", "lm_head"])
    wanted = ["language_model.model.layers.0.mlp.up_proj", "language_model.lm_head"]
    assert [pair.name for pair in named_for_mlx(pairs, base)] == wanted  # by the names alone
    tiny_gemma3().config.save_pretrained(tmp_path)
    assert [pair.name for pair in named_for_mlx(pairs, base)] == wanted
    alone = pairs_of(["model.layers.0.mlp.up_proj", "lm_head"])  # as AutoModelForCausalLM loads Qwen3.5
    assert [pair.name for pair in named_for_mlx(alone, base)] == wanted
    (tmp_path / "config.json").write_text('{"model_type": "gemma3n"}')
    assert [pair.name for pair in named_for_mlx(pairs, base)] == [pair.name for pair in pairs]
    tiny_llama().config.save_pretrained(tmp_path)
    assert [pair.name for pair in named_for_mlx(alone, base)] == [pair.name for pair in alone]


def test_a_module_that_mlx_lm_does_not_have_is_refused():
    """DeepSeek's kv_b_proj is two modules there."""
    for name in ("model.layers.0.mlp.experts.3.up_proj", "model.language_model.layers.0.mlp.experts.3.up_proj"):
        with pytest.raises(ModelError, match=f"the adapter on '{name}' cannot be exported to profile 'mlx'"):
            named_for_mlx(pairs_of([name]), Base(LoraConfig()))
    pairs = pairs_of(["model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.kv_b_proj"])
    with pytest.raises(ModelError, match=r"kv_b_proj' cannot be .*: mlx-lm has no module of this name\. Choose"):
        named_for_mlx(pairs, Base(LoraConfig()))
    neox = pairs_of(["gpt_neox.layers.0.mlp.dense_h_to_4h"])
    assert [pair.name for pair in named_for_mlx(neox, Base(LoraConfig()))] == ["model.h.0.mlp.dense_h_to_4h"]


def test_a_vision_tower_is_refused():
    pairs = pairs_of(["model.language_model.layers.0.mlp.up_proj", "model.vision_tower.encoder.layers.0.mlp.fc1"])
    with pytest.raises(
        ModelError, match=r"fc1' cannot be exported to profile 'mlx': mlx-lm has the language model alone\."
    ):
        named_for_mlx(pairs, Base(LoraConfig()))
