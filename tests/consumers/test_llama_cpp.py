"""llama.cpp: its converter writes the same file, and it serves SmolLM2 with the exported adapter as PEFT does.

The converter is the one in llama-cpp-python's source distribution, the server the one in xllamacpp. The logits are
compared on weights in float32, since llama.cpp rounds what it multiplies quantized weights by.
"""

import json

import pytest
import torch
import transformers as t
from consumers.settings.sources import installed_apart
from exports import randomize_, saved
from models import smollm2
from peft import LoraConfig, get_peft_model

from weightlora.adapters import find_adapters
from weightlora.errors import DataError
from weightlora.export import export_adapter
from weightlora.export.gguf import ARCHITECTURES, convert

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"vocab_size": 50, "intermediate_size": 24, "max_position_embeddings": 64}
SIZES |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
EXTRA = {"qwen3": {"head_dim": 8}, "gemma2": {"head_dim": 8}, "smollm3": {"use_sliding_window": False}}
SPLIT = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "embed_tokens"]


def llama_cpp():
    return installed_apart("llama_cpp_python-0.3.36") / "vendor" / "llama.cpp"


def tensors_of(path) -> dict[str, tuple]:
    from gguf.gguf_reader import GGUFReader

    return {one.name: (one.tensor_type, tuple(one.shape), one.data.tobytes()) for one in GGUFReader(path).tensors}


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in ARCHITECTURES), ("llama", "float16"), ("llama", "bfloat16")]
)
def test_the_converter_writes_the_same_tensors(name, dtype, tmp_path):
    sources = llama_cpp()
    model = t.AutoModelForCausalLM.from_config(t.AutoConfig.for_model(name, **SIZES, **EXTRA.get(name, {})))
    model.save_pretrained(tmp_path / "base")
    targets = list(FUSED if name == "phi3" else SPLIT)
    if model.config.tie_word_embeddings:  # llama.cpp would use their adapter in the output, too, so it is refused
        targets.remove("embed_tokens")
    ranks, alphas = {targets[0]: 2}, {targets[1]: 36.56}
    config = LoraConfig(r=4, lora_alpha=-7, rank_pattern=ranks, alpha_pattern=alphas, target_modules=targets)
    adapted = get_peft_model(model, config)
    randomize_(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    settings = {"profile": "gguf", "base": str(tmp_path / "base"), "dtype": dtype}
    export_adapter(tmp_path / "adapter", tmp_path / "ours", **settings)
    export_adapter(tmp_path / "adapter", tmp_path / "theirs", **settings, llama_cpp=sources)
    ours, theirs = (tensors_of(tmp_path / one / "adapter.gguf") for one in ("ours", "theirs"))
    assert ours == theirs and len(ours) == 4 * len(targets) - 2 * ("embed_tokens" in targets)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """SmolLM2 in float32 on disk: for PEFT in base/, for llama.cpp as f32.gguf."""
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: run `make consumers`")
    from benchmarks.workloads.smollm2 import GGUF, smollm2_path

    try:
        source = smollm2_path() / GGUF
    except DataError as error:
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("smollm2")
    write_float32(source, directory / "f32.gguf")
    model, _ = smollm2()
    model.save_pretrained(directory / "base")
    return directory


def write_float32(source, target) -> None:
    """The same model with dequantized weights."""
    import gguf
    from gguf.gguf_reader import GGUFReader

    reader = GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key not in ("general.architecture", "general.file_type"):
            writer.add_key_value(key, field.contents(), *field.types[:2])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_llama_cpp(directory, ids, lora=None) -> torch.Tensor:
    """The log-probabilities of the next token."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = str(directory / "f32.gguf"), 256, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if lora is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
    asked = {"prompt": ids, "n_predict": 1, "n_probs": 49152, "temperature": 0.0, "cache_prompt": False}
    answer = xllamacpp.Server(params).handle_completions(asked)
    answer = json.loads(answer) if isinstance(answer, str) else answer
    found = torch.full((49152,), torch.nan, dtype=torch.double)
    for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        found[entry["id"]] = entry["logprob"]
    return found


def by_peft(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)


@pytest.mark.slow
def test_llama_cpp_serves_what_peft_computes(served, tmp_path, capsys):
    """The bound is twice what the base alone differs by; plain LoRA is as close as an export of gates and ranks."""
    model = t.AutoModelForCausalLM.from_pretrained(served / "base")
    ids = smollm2()[1]("The quick brown fox jumps over the lazy dog and then").input_ids
    names = [name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear) and name != "lm_head"]
    chosen = names[::4]
    ranks = dict.fromkeys(chosen[::3], 8)
    gates = {name: 36.56 if i % 2 else -5.5 for i, name in enumerate(chosen[::2])}
    base = by_peft(model, ids)
    rounding = float((by_llama_cpp(served, ids) - base).abs().max())
    kinds = {
        "plain LoRA": {"r": 8, "lora_alpha": 8, "target_modules": names},
        "gates": {"r": 32, "lora_alpha": 32, "target_modules": chosen, "rank_pattern": ranks, "alpha_pattern": gates},
    }
    said = [f"base alone: {rounding:.1e}"]
    for kind, settings in kinds.items():
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
        for adapter in find_adapters(adapted, check=False):
            torch.nn.init.normal_(adapter.factors[1], std=0.02 / abs(adapter.scaling) ** 0.5)
        adapted.save_pretrained(tmp_path / kind)
        expected = by_peft(adapted, ids)
        model = adapted.unload()
        exported = export_adapter(tmp_path / kind, tmp_path / f"{kind} out", "gguf", base=str(served / "base"))
        found = by_llama_cpp(served, ids, exported.directory / "adapter.gguf")
        apart, effect = float((found - expected).abs().max()), float((expected - base).abs().max())
        said.append(f"{kind}: {apart:.1e}, where the adapter changes {effect:.1e}")
        assert apart < 2 * rounding < effect / 100
    (tmp_path / "raw").mkdir()
    convert(tmp_path / "gates", tmp_path / "raw", torch.float32, str(served / "base"), llama_cpp())
    raw = float((by_llama_cpp(served, ids, tmp_path / "raw" / "adapter.gguf") - expected).abs().max())
    said.append(f"gates, converted without the export: {raw:.1e}")
    assert raw > effect / 10
    with capsys.disabled():
        print("\nlog-probabilities of llama.cpp against PEFT, largest difference: " + "; ".join(said))


def test_the_converter_alone_would_serve_another_model(tmp_path):
    """It reads lora_alpha and no pattern: the gates are gone."""
    from gguf.gguf_reader import GGUFReader

    (tmp_path / "raw").mkdir()
    convert(saved("gates"), tmp_path / "raw", torch.float32, str(saved("gates").parent / "base"), llama_cpp())
    reader = GGUFReader(tmp_path / "raw" / "adapter.gguf")
    assert reader.fields["adapter.lora.alpha"].contents() == 6.0
    assert {tensor.shape[0] for tensor in reader.tensors if tensor.name.endswith(".lora_b")} == {4}
