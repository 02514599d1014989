"""The models on which steps are timed: two that are used, and Llamas with random weights, small and large."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    set_seed,
)
from transformers.utils import is_flash_attn_2_available

from weightlora.errors import DataError
from weightlora.train.demo import load_reviews, minilm_path
from weightlora.train.result import read_result

from ..workloads.smollm2 import load_smollm2

Batch = dict[str, Tensor]
QUALITY = Path(__file__).parents[1] / "quality"
BATCHES = 8
VOCABULARY = 4096  # of the small Llamas
TOKENS = 4096  # in a batch of the large one
BILLION = {
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}
"""A Llama of 1.04 billion parameters."""


@dataclass(frozen=True)
class How:
    """How a model is trained.

    Attributes:
        dtype: Of the weights; adapters have the same.
        attention: What Transformers calls its implementation.
        checkpointing: Whether activations are recomputed in the backward pass (gradient checkpointing).
        compiled: Whether `torch.compile` compiles the model.
    """

    dtype: str = "float32"
    attention: str = "sdpa"
    checkpointing: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Subject:
    """A model and its batches, without padding.

    Attributes:
        base: The model without adapters. `fresh` copies it.
        batches: All of one shape.
        keep: Adapters that the selection keeps.
        target: Arguments of PEFT's config: modules, and the task type.
        rivals: Whether other methods, such as full fine-tuning, are timed on it. Where none is, no variant trains the
            weights, and all copies share them.
        how: How it is trained.
        chosen: Names of the adapters to keep: those that a whole run kept, because how deep the lowest one lies
            decides what a step costs. Where there are none, the credit of the warm-up chooses.
    """

    base: nn.Module
    batches: list[Batch]
    keep: int
    target: dict[str, Any] = field(default_factory=lambda: {"target_modules": "all-linear", "task_type": "CAUSAL_LM"})
    rivals: bool = True
    how: How = How()
    chosen: tuple[str, ...] = ()

    def fresh(self) -> Any:
        """A copy of the model, in training mode."""
        shared = {} if self.rivals else {id(weight): weight for weight in self.base.parameters()}
        return copy.deepcopy(self.base, shared).train()

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and tokens of a batch."""
        return tuple(self.batches[0]["input_ids"].shape)

    def to(self, device: torch.device) -> "Subject":
        """The same on a device."""
        batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in self.batches]
        return replace(self, base=self.base.to(device), batches=batches)


def _minilm() -> Subject:
    """37 linear modules of an encoder, a head for two classes; the first IMDb reviews that fill all tokens."""
    set_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(minilm_path(), num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    reviews = load_reviews("imdb")["train"][:1000]
    encoded = tokenizer([row["text"] for row in reviews], truncation=True, max_length=64)
    full = [place for place, ids in enumerate(encoded["input_ids"]) if len(ids) == 64]
    rows = {**encoded, "labels": [row["label"] for row in reviews]}
    columns = {name: torch.tensor([values[place] for place in full]) for name, values in rows.items()}
    run = _stored("rotten-tomatoes-all", "probe")
    target = {"target_modules": run.names, "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    return Subject(base, _cut(columns, 32), len(run.kept), target, chosen=tuple(run.kept))


def _smollm2() -> Subject:
    """210 linear modules of a Llama; IMDb reviews as text to continue."""
    base, tokenizer = load_smollm2()
    texts = "\n".join(row["text"] for row in load_reviews("imdb")["train"][:400])
    ids = torch.tensor(tokenizer(texts).input_ids)
    blocks = ids[: len(ids) // 64 * 64].view(-1, 64)
    kept = _stored("smollm2-imdb-lm-float32", "probe").kept
    batches = _cut({"input_ids": blocks, "labels": blocks}, 8)
    return Subject(base, batches, len(kept), rivals=False, chosen=tuple(kept))


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


def large_llama(device: torch.device, tokens: int, how: How, size: dict[str, Any] = BILLION) -> Subject:
    """A Llama with random weights, made on the device, and batches of as many random tokens at any length."""
    set_seed(0)
    config = LlamaConfig(**size, use_cache=False)
    with device:
        base = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, how.dtype), attn_implementation=how.attention
        )
    rows = TOKENS // tokens
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (rows * BATCHES, tokens), generator=generator)
    batches = _cut({"input_ids": ids, "labels": ids}, rows)
    return Subject(base, batches, 7 * config.num_hidden_layers // 4, rivals=False, how=how).to(device)


def _gpu_models() -> dict[str, Callable[[torch.device], Subject]]:
    """Flash attention where it is installed, else torch's own, which has it inside for batches without padding."""
    attention = "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
    models: dict[str, Callable[[torch.device], Subject]] = {}
    for tokens in (512, 2048):
        for checkpointing in (False, True):
            for compiled in (False, True):
                name = f"Llama-1B-{tokens}" + "-checkpointing" * checkpointing + "-compiled" * compiled
                how = How("bfloat16", attention, checkpointing, compiled)
                models[name] = partial(large_llama, tokens=tokens, how=how)
    return models


def _stored(task: str, label: str) -> Any:
    """The run of the comparison of methods at the first seed, which says what it kept."""
    path = QUALITY / task / "results" / label / "seed-0.json"
    result = read_result(path)
    if not result.kept:
        raise DataError(f"{path} does not say what the run kept: repeat it with python -m benchmarks run.")
    return result


def _cut(columns: Batch, rows: int) -> list[Batch]:
    """The first rows as batches."""
    return [{name: c[i * rows : (i + 1) * rows] for name, c in columns.items()} for i in range(BATCHES)]


MODELS: dict[str, Callable[[], Subject]] = {
    "MiniLM-L6": _minilm,
    "SmolLM2-135M": _smollm2,
    **{f"Llama-{layers}-layers": partial(_llama, layers) for layers in (4, 8, 16, 32)},
}
"""Name -> its loader."""

GPU_MODELS = _gpu_models()
"""Name -> what makes it on a device: one model of a billion parameters, by tokens a row and by how it is trained."""
