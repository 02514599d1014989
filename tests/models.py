"""Tiny models for the tests: real Transformers classes, and small modules with every kind of layer LoRA knows."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerBase,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

from weightlora.errors import ConfigError

BERT_TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


WORDS = ["good", "bad", "fine", "awful", "film", "plot", "actor", "scene", "end", "song"]


def sentence(index: int) -> str:
    """A text of three of the words; the first 144 differ."""
    return f"{WORDS[index % 4]} {WORDS[4 + index // 4 % 6]} {WORDS[4 + index // 24]}"


def tiny_bert(layers: int = 2, dropout: float = 0.0, **sizes: int) -> BertForSequenceClassification:
    torch.manual_seed(0)
    usual = {"hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 16}
    config = BertConfig(
        vocab_size=50,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **usual | sizes,
    )
    return BertForSequenceClassification(config)


def wide_bert() -> BertForSequenceClassification:
    """A BERT of 6 layers, for texts of up to 64 tokens: its activations are larger than everything else."""
    return tiny_bert(6, dropout=0.1, hidden_size=64, intermediate_size=256, max_position_embeddings=64)


def lora_bert(layers: int = 2, dropout: float = 0.0, **lora) -> PeftModel:
    """A BERT with 6 adapters a layer, and a head in `modules_to_save`."""
    model = tiny_bert(layers, dropout)
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": BERT_TARGETS, "task_type": "SEQ_CLS"} | lora
    return get_peft_model(model, LoraConfig(**settings))


def batch(step: int = 0, size: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    ids = torch.randint(0, 50, (size, 10), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (ids[:, 0] % 2)}


def samples(number: int = 48) -> list[dict[str, Tensor]]:
    """The first examples of the batches, one by one."""
    batches = [batch(step) for step in range(math.ceil(number / 8))]
    return [{key: value[i] for key, value in one.items()} for one in batches for i in range(8)][:number]


def training_arguments(directory, **settings) -> TrainingArguments:
    """Arguments of a Trainer on the CPU that logs each step and prints nothing."""
    usual = {"learning_rate": 1e-2, "logging_steps": 1, "report_to": [], "disable_tqdm": True, "use_cpu": True}
    return TrainingArguments(str(directory), **usual | settings)


def adamw(model: nn.Module, lr: float = 1e-2, **settings) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, **settings)


def train(model, optimizer, selector=None, steps: int = 1, start: int = 0) -> list[float]:
    """The plain loop of the README."""
    losses = []
    for step in range(start, start + steps):
        loss = model(**batch(step)).loss
        loss.backward()
        optimizer.step()
        if selector is not None:
            selector.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


class Zoo(nn.Module):
    """One layer of every plain kind: embedding, linear, Conv1d (with groups), Conv2d, Conv3d."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.linear = nn.Linear(12, 12)
        self.conv1 = nn.Conv1d(12, 8, 3, padding=1, groups=2)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3 = nn.Conv3d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.linear(self.embed(ids)).tanh()  # (batch, 8, 12)
        x = self.conv1(x.mT)  # (batch, 8, 8)
        x = self.conv2(x.unsqueeze(-1)).squeeze(-1)
        x = self.conv3(x[:, None, :, :, None]).mean((2, 3, 4))
        return self.head(x)


def lora_zoo(**lora) -> PeftModel:
    torch.manual_seed(0)
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["embed", "linear", "conv1", "conv2", "conv3"]} | lora
    return get_peft_model(Zoo(), LoraConfig(**settings))


def lora_gpt2(**lora) -> PeftModel:
    """GPT-2's Conv1D layers, whose weights are transposed."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, pad_token_id=0)
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    settings = {"r": 2, "target_modules": ["c_attn", "c_proj", "c_fc"], "task_type": "SEQ_CLS"} | lora
    return get_peft_model(GPT2ForSequenceClassification(config), LoraConfig(**settings))


def lora_mixtral(**lora) -> PeftModel:
    """Mixtral's fused experts: parameters of shape `(experts, out, in)`, two on one module."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=3,
        max_position_embeddings=32,
        experts_implementation="eager",
    )
    settings = {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "o_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    } | lora
    return get_peft_model(MixtralForCausalLM(config), LoraConfig(**settings))


def save_tokenizer(directory, words: list[str]) -> int:
    """A tokenizer that knows the given words, on disk; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, eos_token="[SEP]", bos_token="[CLS]")
    fast.save_pretrained(directory)
    return len(vocabulary)


def save_classifier(directory, words: list[str], **settings) -> None:
    """A tiny BERT on disk, with a tokenizer that knows the given words: what `from_pretrained` reads."""
    save_tokenizer(directory, words)
    tiny_bert(**settings).save_pretrained(directory)


def tiny_llama(vocabulary: int = 50, layers: int = 2, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def tiny_gemma3() -> Gemma3ForConditionalGeneration:
    """A language model with a tower that reads images."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 50, "head_dim": 8, "num_key_value_heads": 1, "max_position_embeddings": 64}
    text["sliding_window_pattern"] = 2  # mlx-lm wants a layer of each kind
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    tokens = {"boi_token_index": 47, "eoi_token_index": 48, "image_token_index": 49}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **tokens)
    config.vocab_size = 50  # where mlx-lm looks for it
    return Gemma3ForConditionalGeneration(config)


def tiny_wav2vec2() -> Wav2Vec2ForCTC:
    config = Wav2Vec2Config(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        conv_dim=(8,),
        conv_kernel=(3,),
        conv_stride=(2,),
        num_feat_extract_layers=1,
        num_conv_pos_embedding_groups=2,
    )
    return Wav2Vec2ForCTC(config)


@cache
def gguf_reader(path: str | Path) -> Any:
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(path)


PARSED: dict[int, Any] = {}  # by the id of a part, which the reader keeps


def parse_gguf_once(value: Any, types: list[Any]) -> Any:
    """What Transformers reads of a part of a file: there are 100,000, most of them words of the tokenizer."""
    from transformers.integrations.ggml import _gguf_parse_value

    if id(value) not in PARSED:
        PARSED[id(value)] = _gguf_parse_value(value, types)
    return PARSED[id(value)]


@contextmanager
def gguf_is_read_once() -> Iterator[None]:
    """Transformers reads the file anew for the tokenizer, the config and the weights, and makes the table of tensor
    names anew for each module: seconds each time."""
    from gguf.tensor_mapping import get_tensor_name_map

    with (
        mock.patch("gguf.GGUFReader", gguf_reader),
        mock.patch("transformers.modeling_gguf_pytorch_utils._gguf_parse_value", parse_gguf_once),
        mock.patch("gguf.get_tensor_name_map", cache(get_tensor_name_map)),
    ):
        yield


def needs_gguf() -> None:
    """Skip the test where Transformers reads a GGUF model wrongly."""
    from weightlora.train.gguf import check_gguf

    try:
        check_gguf()
    except ConfigError as error:
        pytest.skip(str(error))


@cache
def smollm2() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The real SmolLM2-135M and its tokenizer. The load takes seconds, so there is one: copy it before changing it."""
    from benchmarks.workloads.smollm2 import load_smollm2

    needs_gguf()
    with gguf_is_read_once():
        return load_smollm2()


def save_causal(directory, words: list[str]) -> None:
    """A tiny Llama on disk, with a tokenizer that knows the given words."""
    tiny_llama(save_tokenizer(directory, words)).save_pretrained(directory)
