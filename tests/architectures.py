"""Real classes of Transformers and diffusers at tiny sizes, one a family: how to build it, and a batch with a loss."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as t
from models import adamw, smollm2
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

VOCABULARY = 50
REAL = "SmolLM2-135M, the real one"


@dataclass(frozen=True)
class Architecture:
    """`build` makes the base model, `batch` its inputs, `lora` what LoraConfig needs beside the rank."""

    build: Callable[[], nn.Module]
    batch: Callable[[], dict[str, Tensor]]
    lora: dict[str, Any]
    keep: int = 4
    needs: str = "transformers"


def ids(length: int = 8, size: int = 4) -> Tensor:
    return torch.randint(4, VOCABULARY, (size, length))


def classes() -> dict[str, Tensor]:
    tokens = ids()
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": torch.arange(4) % 2}


def language() -> dict[str, Tensor]:
    tokens = ids()
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens.clone()}


def images() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(4, 3, 16, 16), "labels": torch.arange(4) % 2}


def speech() -> dict[str, Tensor]:
    return {"input_features": torch.randn(4, 8, 40), "labels": ids(6)}


def noise() -> dict[str, Tensor]:
    shapes = {"sample": (4, 2, 8, 8), "encoder_hidden_states": (4, 3, 8)}
    return {"timestep": torch.arange(4), **{name: torch.randn(shape) for name, shape in shapes.items()}}


class Denoiser(nn.Module):
    """Stable Diffusion's UNet as its training scripts run it: it predicts what is to be taken away."""

    def __init__(self) -> None:
        from diffusers import UNet2DConditionModel

        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=2,
            out_channels=2,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=4,
            norm_num_groups=4,
        )

    def forward(self, sample: Tensor, **inputs: Tensor) -> SequenceClassifierOutput:
        predicted = self.unet(sample, **inputs).sample
        return SequenceClassifierOutput((predicted - sample).square().mean(), predicted)


def sentences() -> dict[str, Tensor]:
    tokens = torch.randint(100, 40_000, (2, 8))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens.clone()}


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
ENCODER = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, **SIZES}
DECODER = {**ENCODER, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SEQUENCE = {"target_modules": "all-linear", "task_type": "SEQ_CLS"}
CAUSAL = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
SEQ2SEQ = {"target_modules": "all-linear", "task_type": "SEQ_2_SEQ_LM"}
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}

ARCHITECTURES: dict[str, Architecture] = {
    "BERT": Architecture(
        lambda: t.BertForSequenceClassification(t.BertConfig(**ENCODER, **NO_DROPOUT)), classes, SEQUENCE
    ),
    "RoBERTa": Architecture(
        lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**ENCODER, **NO_DROPOUT, pad_token_id=0)),
        classes,
        SEQUENCE,
    ),
    "DeBERTa-v2 and v3": Architecture(
        lambda: t.DebertaV2ForSequenceClassification(
            t.DebertaV2Config(
                **ENCODER,
                **NO_DROPOUT,
                relative_attention=True,
                position_buckets=8,
                pos_att_type=["p2c", "c2p"],
                share_att_key=True,
                norm_rel_ebd="layer_norm",
                position_biased_input=False,
                type_vocab_size=0,
            )
        ),
        classes,
        SEQUENCE,
    ),
    "ModernBERT": Architecture(
        lambda: t.ModernBertForSequenceClassification(
            t.ModernBertConfig(
                **ENCODER, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3
            )
        ),
        classes,
        SEQUENCE,
    ),
    "BART": Architecture(lambda: t.BartForConditionalGeneration(t.BartConfig(**BART)), language, SEQ2SEQ),
    "T5": Architecture(
        lambda: t.T5ForConditionalGeneration(
            t.T5Config(
                vocab_size=VOCABULARY,
                d_model=16,
                d_kv=8,
                d_ff=24,
                num_layers=1,
                num_heads=2,
                decoder_start_token_id=0,
                pad_token_id=0,
            )
        ),
        language,
        SEQ2SEQ,
    ),
    "GPT-2": Architecture(
        lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2)),
        language,
        CAUSAL,
    ),
    "Llama": Architecture(lambda: t.LlamaForCausalLM(t.LlamaConfig(**DECODER)), language, CAUSAL),
    "Qwen3": Architecture(lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**DECODER, head_dim=8)), language, CAUSAL),
    "Gemma 3": Architecture(
        lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**DECODER, head_dim=8, sliding_window=8)), language, CAUSAL
    ),
    "Mixtral, experts included": Architecture(
        lambda: t.MixtralForCausalLM(t.MixtralConfig(**DECODER, num_local_experts=2)),
        language,
        {
            "target_modules": ["q_proj", "v_proj", "o_proj"],
            "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
            "task_type": "CAUSAL_LM",
        },
    ),
    "ViT": Architecture(
        lambda: t.ViTForImageClassification(t.ViTConfig(**SIZES, image_size=16, patch_size=8)),
        images,
        {"target_modules": "all-linear", "modules_to_save": ["classifier"]},
    ),
    "Whisper": Architecture(
        lambda: t.WhisperForConditionalGeneration(
            t.WhisperConfig(
                **BART, num_mel_bins=8, decoder_start_token_id=2, max_source_positions=20, max_target_positions=32
            )
        ),
        speech,
        {"target_modules": "all-linear"},
    ),
    "UNet of Stable Diffusion (diffusers)": Architecture(
        Denoiser,
        noise,
        {"target_modules": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]},
        needs="diffusers",
    ),
    REAL: Architecture(lambda: copy.deepcopy(smollm2()[0]), sentences, CAUSAL, keep=20),
}


SETTINGS = {
    "credit": {"select_steps": 3},
    "gates, growing": {"select_steps": 3, "selection": "stoiht", "expand": "qr"},
}


def select_disconnect_and_load(architecture: Architecture, rule: str, directory: Path) -> None:
    """Assert that a selection under one of the `SETTINGS` works, and that plain PEFT loads the result to the same."""
    torch.manual_seed(0)
    base = architecture.build()
    again = copy.deepcopy(base)
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=8, **architecture.lora)).train()
    optimizer = adamw(model)
    n = len(find_adapters(model))
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=architecture.keep, **SETTINGS[rule]))
    moved = {}
    for step in range(5):
        torch.manual_seed(10 + step)
        model(**architecture.batch()).loss.backward()
        if step == 3:  # the first step of the survivors alone
            assert len(find_adapters(model)) == architecture.keep < n
            moved = {adapter.name: adapter.factors[1].detach().clone() for adapter in selector.adapters}
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    assert all(not torch.equal(a.factors[1], moved[a.name]) for a in selector.adapters), "they train on"

    model.eval().save_pretrained(directory)
    loaded = PeftModel.from_pretrained(again, directory).eval()
    assert {adapter.name for adapter in find_adapters(loaded, check=False)} == set(selector.kept)
    torch.manual_seed(99)
    batch = architecture.batch()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
