"""The file of llama.cpp, read with the gguf package by llama.cpp's rule: alpha / rank of the tensor."""

import subprocess
import sys

import gguf
import pytest
import torch
from exports import CASES, EXPERTS_AND_HEADS, deltas, saved
from gguf.gguf_reader import GGUFReader
from models import tiny_llama

from weightlora.errors import ConfigError, MissingPackageError, ModelError
from weightlora.export import gguf as ours
from weightlora.export.checks import compare_pairs
from weightlora.export.source import read_source

NAMES = [name for name in CASES if name not in EXPERTS_AND_HEADS]
CONFIG = tiny_llama().config
MODULES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
MODULES |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def tensor_of(module: str) -> str:
    if module == "model.embed_tokens":
        return "token_embd.weight"
    layer, last = module.split(".")[2], module.rpartition(".")[2]
    return f"blk.{layer}.{MODULES[last]}.weight"


def rows_of(module: str, delta: torch.Tensor) -> torch.Tensor:
    """llama.cpp's order of the rows of q and k: neighbours are rotated together, and not the halves of a head."""
    heads = {"q_proj": 2, "k_proj": 1}.get(module.rpartition(".")[2])
    if heads is None:
        return delta
    half = delta.shape[0] // heads // 2
    order = [head * 2 * half + j * half + i for head in range(heads) for i in range(half) for j in range(2)]
    return delta[order]


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_adds_the_same_to_every_weight(name, tmp_path):
    source = read_source(saved(name))
    ours.write_gguf(source.pairs, tmp_path, torch.float32, CONFIG)
    reader = GGUFReader(tmp_path / "adapter.gguf")
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    alpha = reader.fields["adapter.lora.alpha"].contents()
    before = deltas(saved(name), CASES[name].base())
    assert len(tensors) == 2 * len(before)
    for module, delta in before.items():
        a, b = (tensors[f"{tensor_of(module)}.lora_{letter}"] for letter in "ab")
        if module == "model.embed_tokens":
            a = a.T  # llama.cpp looks rows of A up
            delta = delta.T
        torch.testing.assert_close(alpha / b.shape[1] * (b @ a), rows_of(module, delta), rtol=1e-5, atol=1e-5)


def test_the_file_says_what_it_is(tmp_path):
    ours.write_gguf(read_source(saved("gates")).pairs, tmp_path, torch.float32, CONFIG)
    fields = GGUFReader(tmp_path / "adapter.gguf").fields
    assert {key: fields[key].contents() for key in fields if not key.startswith("GGUF.")} == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 4.0,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_was_written_is_read_back(dtype, tmp_path):
    pairs = read_source(saved("rsLoRA with gates and ranks")).pairs
    ours.write_gguf(pairs, tmp_path, dtype, CONFIG)
    assert compare_pairs(pairs, ours.read_gguf(tmp_path, pairs, CONFIG), dtype) < 1e-2


def test_a_gguf_that_is_too_old_for_the_model_is_named(tmp_path, monkeypatch):
    pairs = read_source(saved("rsLoRA with gates and ranks")).pairs
    known = {number: name for number, name in gguf.MODEL_ARCH_NAMES.items() if name != "llama"}
    monkeypatch.setattr(gguf, "MODEL_ARCH_NAMES", known)
    with pytest.raises(MissingPackageError, match=r"gguf \S+ does not know the architecture 'llama': update it with"):
        ours.write_gguf(pairs, tmp_path, torch.float32, CONFIG)


def test_a_module_that_llama_cpp_has_not_is_refused(tmp_path):
    pairs = read_source(saved("a head")).pairs
    with pytest.raises(ModelError, match=r"llama.cpp has no tensor for the module 'bert.encoder.layer.0.attention"):
        ours.write_gguf(pairs, tmp_path, torch.float32, CONFIG)


def test_an_adapter_that_is_missing_or_too_many_is_found(tmp_path):
    pairs = read_source(saved("gates")).pairs
    ours.write_gguf(pairs[1:], tmp_path, torch.float32, CONFIG)
    with pytest.raises(ModelError, match=f"adapter.gguf has no adapter for '{pairs[0].name}'"):
        ours.read_gguf(tmp_path, pairs, CONFIG)
    with pytest.raises(ModelError, match=r"adapter.gguf has a tensor 'blk.0.ffn_up.weight.lora_a' that no adapter"):
        ours.read_gguf(tmp_path, [pair for pair in pairs[1:] if pair.name != "model.layers.0.mlp.up_proj"], CONFIG)


def test_other_architectures_need_the_converter(tmp_path):
    with pytest.raises(ConfigError, match=r"and this base is another one: give the sources of llama.cpp, which conv"):
        ours.convert(tmp_path, tmp_path, torch.float32, "base", None)
    with pytest.raises(
        ConfigError, match=r"has no convert_lora_to_gguf.py: give the directory of llama.cpp's sources"
    ):
        ours.convert(tmp_path, tmp_path, torch.float32, "base", tmp_path)


def test_the_converter_is_run_on_the_portable_adapter(tmp_path, monkeypatch):
    (tmp_path / "convert_lora_to_gguf.py").touch()
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "INFO: loading\nValueError: lm_head is ignored\n\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        ModelError, match=r"llama.cpp's convert_lora_to_gguf.py cannot convert the adapter: ValueError: "
    ):
        ours.convert(tmp_path / "portable", tmp_path / "out", torch.bfloat16, str(tmp_path), tmp_path)
    with pytest.raises(ModelError):
        ours.convert(tmp_path / "portable", tmp_path / "out", torch.float16, "some/model", tmp_path)
    script, out = str(tmp_path / "convert_lora_to_gguf.py"), str(tmp_path / "out" / "adapter.gguf")
    tail = ["--outfile", out, str(tmp_path / "portable")]
    assert commands == [
        [sys.executable, script, "--base", str(tmp_path), "--outtype", "bf16", *tail],
        [sys.executable, script, "--base-model-id", "some/model", "--outtype", "f16", *tail],
    ]
