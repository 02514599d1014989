"""What each profile refuses, by name."""

from dataclasses import replace

import pytest
from exports import randomize_, saved
from models import lora_bert, lora_gpt2, lora_zoo, tiny_llama
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import BdLoraConfig
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
)

from weightlora.errors import ModelError
from weightlora.export.base import Base
from weightlora.export.exporting import export_adapter
from weightlora.export.features import check_features, check_tied, inside_name
from weightlora.export.source import read_source

LLAMA = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
PROFILES = ("portable", "compact", "merged", "mlx", "gguf")


def llama(**lora):
    return get_peft_model(tiny_llama(), LoraConfig(**LLAMA | lora))


ODD = {
    "use_dora": (lambda: llama(use_dora=True), {"merged"}),
    "lora_bias": (lambda: llama(lora_bias=True), {"merged"}),
    "bias": (lambda: lora_bert(1, bias="all", modules_to_save=None), {"merged"}),
    "trainable_token_indices": (lambda: llama(trainable_token_indices=[1, 2]), {"merged"}),
    "use_bdlora": (
        lambda: llama(use_bdlora=BdLoraConfig(target_modules_bd_b=["q_proj"], nblocks=2)),
        {"merged"},
    ),
    "alora_invocation_tokens": (lambda: llama(alora_invocation_tokens=[7]), set()),
    "layer_replication": (lambda: llama(layer_replication=[(0, 2), (1, 2)]), set()),
    "init_lora_weights": (lambda: llama(init_lora_weights="pissa"), set()),
    "modules_to_save": (lambda: lora_bert(1), {"portable", "compact", "merged"}),
    "fan_in_fan_out": (
        lambda: lora_gpt2(task_type=None, fan_in_fan_out=True),
        {"portable", "compact", "merged"},
    ),
    "convolution": (lambda: lora_zoo(target_modules=["conv2"]), {"portable", "compact", "merged"}),
}


@pytest.mark.parametrize("name", ODD)
def test_a_feature_is_refused_by_its_name_where_the_profile_cannot_keep_it(name, tmp_path):
    make, profiles = ODD[name]
    make().save_pretrained(tmp_path)
    source = read_source(tmp_path)
    for profile in PROFILES:
        if profile in profiles:
            check_features(source, profile)
        else:
            with pytest.raises(ModelError, match=f"^{name} cannot be exported to profile '{profile}': "):
                check_features(source, profile)


def test_experts_are_for_the_profiles_of_peft():
    source = read_source(saved("experts"))
    for profile in ("portable", "compact", "merged"):
        check_features(source, profile)
    with pytest.raises(ModelError, match=r"^target_parameters cannot be exported to profile 'gguf': it adapts fused"):
        check_features(source, "gguf")


def test_the_message_names_the_profiles_that_keep_it(tmp_path):
    model = lora_bert(1)
    randomize_(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"Choose profile 'portable' or 'compact' or 'merged'\.$"):
        check_features(read_source(tmp_path), "mlx")


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_on_tied_weights_is_only_for_servers_that_know_two_layers(target, tmp_path):
    adapters = {}
    for tied in (True, False):
        base = str(tmp_path / f"base {tied}")
        tiny_llama(tied=tied).save_pretrained(base)
        model = get_peft_model(tiny_llama(tied=tied), LoraConfig(**LLAMA | {"target_modules": [target, "q_proj"]}))
        model.peft_config["default"].base_model_name_or_path = base
        model.save_pretrained(tmp_path / str(tied))
        adapters[tied] = read_source(tmp_path / str(tied))
    for profile in PROFILES:
        check_tied(adapters[False], Base(adapters[False].config), profile)
        if profile in ("mlx", "gguf"):
            with pytest.raises(ModelError, match=rf"{target}' cannot be exported to profile '{profile}': .* one of"):
                export_adapter(tmp_path / "True", tmp_path / "out", profile=profile, check="tensors")
            assert not (tmp_path / "out").exists()
        else:
            check_tied(adapters[True], Base(adapters[True].config), profile)
    for tied in (True, False):
        exported = export_adapter(tmp_path / str(tied), tmp_path / f"served {tied}", check="tensors")
        assert [one.alike for one in exported.servers if one.server.startswith("llama.cpp")] == [not tied]


@pytest.mark.parametrize("profile", ["mlx", "gguf"])
def test_without_its_base_an_adapter_on_an_output_layer_may_be_on_a_tied_one(profile, tmp_path):
    model = get_peft_model(tiny_llama(), LoraConfig(**LLAMA | {"target_modules": ["lm_head"]}))
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(ModelError, match=r"^the base model ./none cannot be found"):
        check_tied(read_source(tmp_path / "adapter"), Base(LoraConfig(base_model_name_or_path="./none")), profile)


@pytest.mark.parametrize("target", ["model.embed_tokens", "lm_head"])
def test_by_tensors_alone_the_config_of_the_base_tells_tied_weights(target, tmp_path):
    """With its name in full, PEFT saves no embeddings beside the adapter."""
    for tied in (True, False):
        tiny_llama(tied=tied).save_pretrained(tmp_path / str(tied))
        model = get_peft_model(tiny_llama(tied=tied), LoraConfig(**LLAMA | {"target_modules": [target]}))
        model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
        found = {}
        for base in (str(tmp_path / str(tied)), str(tmp_path / "none")):
            out = tmp_path / f"served {tied} {len(found)}"
            servers = export_adapter(tmp_path / "adapter", out, base=base, check="tensors").servers
            found[base] = [one.alike for one in servers if one.server.startswith("llama.cpp")]
        assert list(found.values()) == [[not tied], [False]], "a base that is not found may have them tied"


def test_without_such_an_adapter_no_base_is_needed():
    check_tied(read_source(saved("gates")), Base(LoraConfig(base_model_name_or_path="./none")), "mlx")


@pytest.mark.parametrize("profile", ["mlx", "gguf"])
def test_conv1d_is_known_where_the_config_does_not_say_it(profile, tmp_path):
    """PEFT sets `fan_in_fan_out` for all by the last linear layer."""
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=64, tie_word_embeddings=False)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    base = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, target_modules=["c_attn", "lm_head"], task_type="CAUSAL_LM")
    get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="it adapts the Conv1D layers of GPT-2"):
        export_adapter(tmp_path / "adapter", tmp_path / "out", profile)
    for check in ("logits", "tensors"):
        servers = export_adapter(tmp_path / "adapter", tmp_path / check, check=check).servers
        (note,) = (one.note for one in servers if one.server.startswith("llama.cpp"))
        assert note.startswith("it transposes A and B of the Conv1D layers of GPT-2, such as transformer.h.0"), check


def test_the_names_of_conv1d_in_another_model_are_linear_layers(tmp_path):
    config = GPTBigCodeConfig(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    GPTBigCodeForCausalLM(config).save_pretrained(tmp_path / "base")
    base = GPTBigCodeForCausalLM.from_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "a"
    )
    servers = export_adapter(tmp_path / "a", tmp_path / "out").servers
    assert [one.alike for one in servers if one.server.startswith("llama.cpp")] == [True]


def test_an_output_layer_is_known_by_the_model_and_not_by_its_name(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path / "base")
    model = get_peft_model(
        BertForMaskedLM.from_pretrained(tmp_path / "base"), LoraConfig(r=2, target_modules=["query", "decoder"])
    )
    model.save_pretrained(tmp_path / "adapter")
    servers = export_adapter(tmp_path / "adapter", tmp_path / "out").servers
    (note,) = (one.note for one in servers if one.server.startswith("llama.cpp"))
    assert note.startswith("it uses cls.predictions.decoder for embeddings and output layer where they share a weight")


def test_a_language_model_that_was_loaded_alone_is_inside_another_one(tmp_path):
    """Where servers load the whole model, the names of its modules differ."""
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 64, "num_key_value_heads": 1, "head_dim": 16, "layer_types": ["full_attention"]}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
    config = Qwen3_5Config(text_config=text, vision_config=vision | {"num_position_embeddings": 16})
    Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(alone, LoraConfig(**LLAMA))
    randomize_(model)
    model.save_pretrained(tmp_path / "adapter")
    source = read_source(tmp_path / "adapter")
    assert inside_name(source, Base(source.config)) == "model.layers.0.self_attn.q_proj"
    servers = export_adapter(tmp_path / "adapter", tmp_path / "out").servers
    notes = {one.server: one.note for one in servers if one.server.startswith("vLLM")}
    assert notes["vLLM 0.33 and later"] == "--max-lora-rank 8"
    assert "leaves that out" in notes["vLLM 0.32"] and "leaves that out" in notes["vLLM before 0.32"]
    assert inside_name(source, Base(LoraConfig(base_model_name_or_path="./none"))) is None
    whole = replace(source, pairs=[replace(pair, name=f"model.language_model.{pair.name}") for pair in source.pairs])
    assert inside_name(whole, Base(source.config)) is None
    assert inside_name(read_source(saved("gates")), Base(read_source(saved("gates")).config)) is None
