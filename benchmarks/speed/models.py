"""The models on which steps are timed: two that are used, and Llamas with random weights of 4 to 32 layers."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

from weightlora.train.demo import ENCODER_LINEARS, load_reviews, minilm_path

from ..workloads.minilm import tokenize
from ..workloads.smollm2 import load_smollm2

__all__ = ["MODELS", "Subject"]

Batch = dict[str, Tensor]
BATCHES = 8
VOCABULARY = 4096  # of the Llamas


@dataclass(frozen=True)
class Subject:
    """A model and its batches, without padding.

    Attributes:
        base: The model without adapters. `fresh` copies it.
        batches: All of one shape.
        keep: Adapters that the selection keeps.
        target: Arguments of PEFT's config: modules, and the task type.
        rivals: Whether other methods, such as full fine-tuning, are timed on it.
    """

    base: nn.Module
    batches: list[Batch]
    keep: int
    target: dict[str, Any] = field(default_factory=lambda: {"target_modules": "all-linear", "task_type": "CAUSAL_LM"})
    rivals: bool = True

    def fresh(self) -> Any:
        """A copy of the model, in training mode."""
        return copy.deepcopy(self.base).train()

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and tokens of a batch."""
        return tuple(self.batches[0]["input_ids"].shape)

    def to(self, device: torch.device) -> "Subject":
        """The same on a device."""
        batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in self.batches]
        return replace(self, base=self.base.to(device), batches=batches)


def _minilm() -> Subject:
    """36 linear modules of an encoder, a head for two classes; the first IMDb reviews that fill all tokens."""
    set_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(minilm_path(), num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    rows = tokenize(load_reviews("imdb")["train"][:1000], tokenizer, 64)
    full = [row for row in rows if len(row["input_ids"]) == 64]
    columns = {name: torch.tensor([row[name] for row in full]) for name in full[0]}
    target = {"target_modules": ENCODER_LINEARS, "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    return Subject(base, _cut(columns, 32), 9, target)


def _smollm2() -> Subject:
    """210 linear modules of a Llama; IMDb reviews as text to continue."""
    base, tokenizer = load_smollm2()
    texts = "\n".join(row["text"] for row in load_reviews("imdb")["train"][:400])
    ids = torch.tensor(tokenizer(texts).input_ids)
    blocks = ids[: len(ids) // 64 * 64].view(-1, 64)
    return Subject(base, _cut({"input_ids": blocks, "labels": blocks}, 8), 52, rivals=False)


def _llama(layers: int) -> Subject:
    """Seven linear modules a layer, random weights and random tokens: only time and memory mean something."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    base = LlamaForCausalLM(config)
    ids = torch.randint(VOCABULARY, (4 * BATCHES, 64), generator=torch.Generator().manual_seed(0))
    return Subject(base, _cut({"input_ids": ids, "labels": ids}, 4), 7 * layers // 4)


def _cut(columns: Batch, rows: int) -> list[Batch]:
    """The first rows as batches."""
    return [{name: c[i * rows : (i + 1) * rows] for name, c in columns.items()} for i in range(BATCHES)]


MODELS: dict[str, Callable[[], Subject]] = {
    "MiniLM-L6": _minilm,
    "SmolLM2-135M": _smollm2,
    **{f"Llama-{layers}-layers": partial(_llama, layers) for layers in (4, 8, 16, 32)},
}
"""Name -> its loader."""
