"""SGLang's own stacking of q, k, v and of gate, up (`sglang/srt/lora/lora.py`), its config and its scaling. The wheel
needs CUDA, so the file is loaded alone, and only what works on the adapter's tensors is run."""

import pytest
from consumers.settings.sources import installed_apart, load_file
from exports import CASES, EXPERTS_AND_HEADS, saved
from safetensors.torch import load_file as load_tensors
from stand_ins import stand_ins

from weightlora.export import export_adapter
from weightlora.export.servers import SERVERS, verdicts
from weightlora.export.source import read_source

SGLANG = SERVERS[4].name
PACKAGES = ["sglang", "sglang.srt", "sglang.srt.configs", "sglang.srt.layers", "sglang.srt.lora"]
PACKAGES += ["sglang.srt.lora.backend", "sglang.srt.model_loader", "sglang.srt.utils"]
IMPORTED = [*PACKAGES, "sglang.srt.configs.load_config", "sglang.srt.layers.utils", "sglang.srt.lora.lora_config"]
IMPORTED += ["sglang.srt.lora.backend.base_backend", "sglang.srt.model_loader.loader"]
IMPORTED += ["sglang.srt.utils.hf_transformers_utils"]
NAMES = [name for name in CASES if name not in {*EXPERTS_AND_HEADS, "an embedding"}]


@pytest.fixture
def sglang():
    place = installed_apart("sglang-0.5.23") / "sglang" / "srt" / "lora"
    with stand_ins(*IMPORTED):
        yield (
            load_file(place / "lora.py").LoRAAdapter,
            load_file(place / "lora_config.py").LoRAConfig,
        )


def stack(adapter, directory) -> dict[str, dict]:
    """The tensors of each layer as SGLang stacks them."""
    layers: dict[str, dict] = {}
    for key, tensor in load_tensors(directory / "adapter_model.safetensors").items():
        layers.setdefault(key.split(".")[4], {})[key] = tensor
    for weights in layers.values():
        alone = adapter.__new__(adapter)
        object.__setattr__(alone, "_moe_is_gated_by_layer", {})
        alone.normalize_qkv_proj(list(weights), weights)
        alone.normalize_gate_up_proj(list(weights), weights)
    return layers


@pytest.mark.parametrize("name", NAMES)
def test_a_portable_export_with_whole_groups_is_stacked_at_one_rank(name, sglang, tmp_path):
    exported = export_adapter(saved(name), tmp_path / "out", check="tensors", complete_fused=True)
    adapter, config = sglang
    read = config(str(tmp_path / "out"))
    assert read.lora_alpha / read.r == 1 and read.r == exported.rank
    times = {"qkv_proj": 3, "gate_up_proj": 2}
    for weights in stack(adapter, tmp_path / "out").values():
        for key, tensor in weights.items():
            module, factor = key.split(".")[-3:-1]
            assert module not in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
            if factor == "lora_A":  # what SGLang asserts of the buffer that it copies to
                assert tensor.shape[0] == times.get(module, 1) * read.r


def test_a_part_of_a_group_is_what_sglang_cannot_stack(sglang):
    source = read_source(saved("a few modules"))
    verdict = next(one for one in verdicts(source.config, source.pairs) if one.server == SGLANG)
    assert not verdict.alike
    with pytest.raises(KeyError, match="v_proj"):
        stack(sglang[0], saved("a few modules"))


def test_gate_without_up_is_stacked_by_sglang_itself(sglang):
    directory = saved("plain LoRA")
    weights = {
        k: t for k, t in load_tensors(directory / "adapter_model.safetensors").items() if "1.mlp.gate_proj" in k
    }
    alone = sglang[0].__new__(sglang[0])
    object.__setattr__(alone, "_moe_is_gated_by_layer", {})
    alone.normalize_gate_up_proj(list(weights), weights)
    assert {key.split(".")[-3] for key in weights} == {"gate_up_proj"}
