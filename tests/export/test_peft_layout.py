"""What `portable` and `compact` write: exact ranks, alphas and names, and the same product by PEFT's own rule."""

import json
from dataclasses import replace

import pytest
import torch
from exports import CASES, deltas, saved
from safetensors.torch import load_file

from weightlora.adapters.outcome import EXPORT
from weightlora.export.peft_layout import write_compact, write_portable
from weightlora.export.source import CONFIG, WEIGHTS, read_source

PROFILES = {"portable": write_portable, "compact": write_compact}


def written(name, profile, directory, dtype=torch.float32):
    source = read_source(saved(name))
    PROFILES[profile](source, source.pairs, directory, dtype)
    return json.loads((directory / CONFIG).read_text()), load_file(directory / WEIGHTS)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", CASES)
def test_plain_peft_adds_the_same_to_every_weight(name, profile, tmp_path):
    written(name, profile, tmp_path)
    before, after = deltas(saved(name), CASES[name].base()), deltas(tmp_path, CASES[name].base())
    assert before.keys() == after.keys()
    for module in before:
        torch.testing.assert_close(after[module], before[module], rtol=1e-5, atol=1e-5)


def test_portable_has_one_rank_and_no_patterns(tmp_path):
    config, tensors = written("rsLoRA with gates and ranks", "portable", tmp_path)
    assert (config["r"], config["lora_alpha"]) == (7, 7)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert (config["use_rslora"], config["init_lora_weights"]) == (False, True)
    assert len(config["target_modules"]) == 14 and "model.layers.1.mlp.up_proj" in config["target_modules"]
    assert {tensor.shape[0] for key, tensor in tensors.items() if "lora_A" in key} == {7}
    assert {tensor.shape[1] for key, tensor in tensors.items() if "lora_B" in key} == {7}


def test_compact_has_the_true_ranks_and_equal_patterns(tmp_path):
    config, tensors = written("rsLoRA with gates and ranks", "compact", tmp_path)
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (7, 7, False)
    assert config["rank_pattern"] == config["alpha_pattern"] and len(config["rank_pattern"]) == 13
    ranks = {key: tensor.shape[0] for key, tensor in tensors.items() if "lora_A" in key}
    assert ranks["base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"] == 2
    assert sorted(set(ranks.values())) == [2, 4, 7]


def test_only_lora_is_written_and_the_whole_modules_as_they_are(tmp_path):
    _, tensors = written("an embedding", "portable", tmp_path)
    assert all(".lora_" in key for key in tensors)
    _, tensors = written("a head", "portable", tmp_path)
    others = {key: tensor for key, tensor in tensors.items() if ".lora_" not in key}
    heads = read_source(saved("a head")).heads
    assert others.keys() == heads.keys() and all(torch.equal(others[key], heads[key]) for key in heads)


def test_names_are_in_the_order_of_the_layers_whatever_the_hash_seed(tmp_path):
    config, _ = written("plain LoRA", "portable", tmp_path)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert list(config) == sorted(config)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_are_cast(dtype, tmp_path):
    _, tensors = written("gates", "compact", tmp_path, dtype)
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}


def test_the_card_of_an_exported_adapter_does_not_ask_for_an_export(tmp_path):
    source = replace(read_source(saved("gates")), directory=tmp_path / "source")
    source.directory.mkdir()
    (source.directory / "README.md").write_text(f"A row\n\n{EXPORT}\nthe end\n")
    (tmp_path / "portable").mkdir()
    write_portable(source, source.pairs, tmp_path / "portable", torch.float32)
    assert (tmp_path / "portable" / "README.md").read_text() == "A row\nthe end\n"
