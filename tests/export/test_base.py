"""Which class loads the base, what its skeleton knows, and what is said where it is not found."""

import json

import pytest
import torch
import transformers
from exports import CASES, saved
from models import tiny_bert, tiny_llama
from peft import LoraConfig

from weightlora.errors import ModelError
from weightlora.export.base import Base

CAUSAL = LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path=None)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bases")
    tiny_llama().save_pretrained(directory / "llama")
    tiny_bert().save_pretrained(directory / "bert")
    return directory


def test_the_task_names_the_class(directory):
    model = Base(CAUSAL, str(directory / "llama")).load()
    assert type(model) is transformers.LlamaForCausalLM and model.dtype == torch.float32 and not model.training
    assert torch.equal(model.lm_head.weight, tiny_llama().lm_head.weight)


def test_the_revision_that_the_adapter_names_is_loaded(tmp_path, monkeypatch):
    """As PEFT's own AutoPeftModel does. A base that is given in its place has no revision."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--some--base"
    (place / "refs").mkdir(parents=True)
    for layers, (revision, commit) in enumerate({"main": "a" * 40, "v1": "b" * 40}.items(), start=1):
        (place / "refs" / revision).write_text(commit)
        tiny_llama(layers=layers).save_pretrained(place / "snapshots" / commit)
    config = LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path="some/base", revision="v1")
    assert len(Base(config).load().model.layers) == len(Base(config).skeleton().model.layers) == 2
    assert len(Base(config, "some/base").load().model.layers) == 1


def test_without_a_task_the_record_of_peft_or_the_config_does(directory):
    record = {"base_model_class": "LlamaModel", "parent_library": "transformers.models.llama.modeling_llama"}
    config = LoraConfig(auto_mapping=record)
    assert type(Base(config, str(directory / "llama")).skeleton()) is transformers.LlamaModel
    assert type(Base(LoraConfig(), str(directory / "llama")).skeleton()) is transformers.LlamaForCausalLM


@pytest.mark.parametrize(
    ("architecture", "name", "task", "found"),
    [
        ("LlavaForConditionalGeneration", "model.language_model.layers.0.mlp.up_proj", "CAUSAL_LM", None),
        ("Qwen3_5ForConditionalGeneration", "model.language_model.layers.0.mlp.up_proj", "CAUSAL_LM", None),
        ("Qwen3_5ForConditionalGeneration", "model.layers.0.mlp.up_proj", "CAUSAL_LM", "Qwen3_5ForCausalLM"),
        ("Qwen3_5ForConditionalGeneration", "model.layers.0.mlp.up_proj", None, "Qwen3_5ForCausalLM"),
    ],
)
def test_a_model_with_images_is_loaded_as_it_was_adapted(architecture, name, task, found, tmp_path):
    """The task names the class of a language model, and may have none, or only the one inside."""
    kind = getattr(transformers, architecture).config_class
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    kind(text_config=sizes, architectures=[architecture]).save_pretrained(tmp_path)
    record = {"base_model_class": found, "parent_library": "transformers"} if task is None else None
    base = Base(LoraConfig(task_type=task, auto_mapping=record), str(tmp_path), names=[name])
    model = base.skeleton()
    assert type(model).__name__ == (found or architecture)
    assert name in dict(model.named_modules())


def test_classifiers_of_sound_are_loaded_by_their_own_class(tmp_path):
    """They are called ForSequenceClassification, and AutoModelForSequenceClassification does not know them."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "classifier_proj_size": 8}
    more = {"num_conv_pos_embedding_groups": 2, "num_conv_pos_embeddings": 4}
    config = transformers.Wav2Vec2Config(vocab_size=20, **sizes, **convolutions, **more)
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path)
    base = Base(LoraConfig(task_type="SEQ_CLS", base_model_name_or_path=str(tmp_path)))
    assert type(base.skeleton()).__name__ == "Wav2Vec2ForSequenceClassification"


def test_a_task_may_have_two_classes_for_one_config(tmp_path):
    """Funnel has: Transformers' list names both."""
    transformers.FunnelConfig(architectures=["FunnelModel"]).save_pretrained(tmp_path)
    base = Base(
        LoraConfig(task_type="FEATURE_EXTRACTION"), str(tmp_path), names=["encoder.blocks.0.0.attention.q_head"]
    )
    assert type(base.skeleton()) is transformers.FunnelModel


def test_a_model_with_two_language_models_is_loaded_whole(tmp_path):
    """Transformers raises where one is asked for."""
    config = transformers.MusicgenConfig(  # Transformers 5.11 has no defaults for the three
        text_encoder=transformers.T5Config(),
        audio_encoder=transformers.EncodecConfig(),
        decoder=transformers.MusicgenDecoderConfig(),
        architectures=["MusicgenForConditionalGeneration"],
    )
    config.save_pretrained(tmp_path)
    assert type(Base(LoraConfig(), str(tmp_path)).skeleton()) is transformers.MusicgenForConditionalGeneration


def test_nothing_outside_transformers_is_imported_on_a_files_word(directory, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = LoraConfig(auto_mapping={"base_model_class": "Model", "parent_library": "evil"})
    assert type(Base(config, str(directory / "llama")).skeleton()) is transformers.LlamaForCausalLM


def test_a_class_in_a_module_that_this_version_lacks_is_that_of_the_config(directory):
    config = LoraConfig(auto_mapping={"base_model_class": "Gone", "parent_library": "transformers.models.gone"})
    assert type(Base(config, str(directory / "llama")).skeleton()) is transformers.LlamaForCausalLM


def test_the_head_tells_the_number_of_classes(directory):
    config = LoraConfig(task_type="SEQ_CLS")
    heads = {
        "base_model.model.classifier.bias": torch.ones(5),
        "base_model.model.classifier.weight": torch.ones(5, 16),
    }
    assert Base(config, str(directory / "bert"), heads).load().classifier.out_features == 5
    assert Base(config, str(directory / "bert")).load().classifier.out_features == 2


def test_a_skeleton_has_shapes_and_no_weights(directory):
    model = Base(CAUSAL, str(directory / "llama")).skeleton()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.model.layers[0].self_attn.k_proj.out_features == 8


def test_the_base_says_where_experts_are():
    config = LoraConfig(**CASES["experts"].lora)
    found = Base(config, str(saved("experts").parent / "base")).on_parameters()
    assert {path: (one.name, one.blocks) for path, one in found.items() if ".0." in path} == {
        "model.layers.0.mlp.experts": ("model.layers.0.mlp.experts.down_proj", 3),
        "model.layers.0.mlp.experts.base_layer": ("model.layers.0.mlp.experts.gate_up_proj", 3),
    }


def test_a_base_without_a_name_is_one_sentence():
    with pytest.raises(
        ModelError, match=r"does not name its base model: give it with --base DIR_OR_ID \(in Python base=\.\.\.\)\.$"
    ):
        Base(CAUSAL).load()
    with pytest.raises(
        ModelError, match=r"or compare the tensors alone with --check tensors \(in Python check=\"tensors\"\)\.$"
    ):
        Base(CAUSAL, optional=True).load()


@pytest.mark.parametrize("name", ["/no/such/directory", "nobody/nothing"])
def test_a_base_that_is_not_there_is_one_sentence(name):
    with pytest.raises(
        ModelError, match=rf"^the base model {name} cannot be (found|loaded) \(.*\): give it with --base"
    ):
        Base(CAUSAL, name).load()


def test_a_quantized_base_is_refused(directory, tmp_path):
    config = json.loads((directory / "llama" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for optional, end in ((False, r"\.$"), (True, ", or compare the tensors alone with --check tensors")):
        with pytest.raises(ModelError, match=rf"is quantized: give the original weights with --base .*\.\.\.\){end}"):
            Base(CAUSAL, str(tmp_path), optional=optional).load()
