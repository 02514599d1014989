"""Heads with more modules than PEFT knows, and bases whose checkpoints lack them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import tiny_bert, tiny_llama
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertModel,
    DebertaV2Config,
    DistilBertConfig,
    PretrainedConfig,
)

from weightlora.errors import ModelError
from weightlora.export.checks import probe_batch
from weightlora.export.exporting import export_adapter

BART = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
CONFIGS: dict[str, PretrainedConfig] = {
    "distilbert": DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24),
    "bart": BartConfig(vocab_size=50, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, **BART),
    "deberta": DebertaV2Config(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    ),
}
MORE = {"distilbert": ["pre_classifier"], "bart": ["classification_head"], "deberta": ["pooler"]}
TARGETS = {"distilbert": ["q_lin"], "bart": ["q_proj"], "deberta": ["query_proj"]}


def saved(kind: str, directory: Path, **lora: Any) -> nn.Module:
    """An adapter for three classes in `adapter/`, of a base in `base/` that has no head at all."""
    AutoModel.from_config(CONFIGS[kind]).save_pretrained(directory / "base")
    base = AutoModelForSequenceClassification.from_pretrained(directory / "base", num_labels=3)
    model = get_peft_model(
        base, LoraConfig(**({"task_type": "SEQ_CLS", "target_modules": TARGETS[kind]} | lora))
    ).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    model.save_pretrained(directory / "adapter")
    return model


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    result: Tensor = model(input_ids=torch.tensor([[5, 6, 7, 2]])).logits
    return result


@pytest.mark.parametrize("task_type", ["SEQ_CLS", None])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_head_that_is_in_the_adapter_is_in_the_merged_model(kind, task_type, tmp_path):
    model = saved(kind, tmp_path, modules_to_save=[*MORE[kind], "classifier"], task_type=task_type)
    export_adapter(tmp_path / "adapter", tmp_path / "out", profile="merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert merged.config.num_labels == 3 and torch.allclose(logits(merged), logits(model), atol=1e-5)


def test_peft_saves_what_ends_as_a_head_without_being_told(tmp_path):
    model = saved("distilbert", tmp_path)
    export_adapter(tmp_path / "adapter", tmp_path / "out", profile="merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert torch.allclose(logits(merged), logits(model), atol=1e-5)


@pytest.mark.parametrize("task_type", ["SEQ_CLS", None])
@pytest.mark.parametrize("kind", ["bart", "deberta"])
def test_a_head_that_nobody_saved_is_one_sentence(kind, task_type, tmp_path):
    """Transformers would draw another one, and the merged model would guess. PEFT needs the task type to save any."""
    saved(kind, tmp_path, task_type=task_type)
    first = f"{MORE[kind][0]}.dense" if task_type else "class"
    with pytest.raises(
        ModelError, match=rf"^neither the base model .* has the weights of {first}.* or train again with"
    ):
        export_adapter(tmp_path / "adapter", tmp_path / "out", profile="merged")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("profile", "check", "wrong"),
    [("merged", "logits", True), ("merged", "tensors", True), ("portable", "logits", False)],
)
def test_no_weight_of_a_merged_model_is_random(profile, check, wrong, tmp_path):
    """Both sides of the comparison would have the same random output layer."""
    tiny_llama().model.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "adapter"
    )
    if wrong:
        with pytest.raises(
            ModelError, match=r"^neither the base model .* has the weights of lm_head, which were rand"
        ):
            export_adapter(tmp_path / "adapter", tmp_path / "out", profile, check=check)
    else:
        export_adapter(tmp_path / "adapter", tmp_path / "out", profile, check=check)


def test_an_encoder_without_a_pooler_is_merged(tmp_path):
    BertModel(tiny_bert().config, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    base = AutoModel.from_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["query"], task_type="FEATURE_EXTRACTION")
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    export_adapter(tmp_path / "adapter", tmp_path / "out", "merged")


def test_the_batch_of_an_encoder_and_decoder_has_one_end_if_the_config_names_it():
    config = BartConfig(vocab_size=50, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, **BART)
    model = AutoModel.from_config(config)
    ids = probe_batch(model)["input_ids"]
    assert int((ids == 2).sum()) == 1 and int(ids[0, -1]) == 2
    text = SimpleNamespace(vocab_size=50)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text, is_encoder_decoder=True))
    assert "decoder_input_ids" in probe_batch(model), "a config of two parts may have no end of its own"
