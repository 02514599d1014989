"""LoRA as people use it, one row a kind: the config, and what comes of it. The docs have a table made of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from models import BERT_TARGETS, tiny_bert
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer
from torch import nn


def adamw_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def lora_plus(model: Any) -> torch.optim.Optimizer:
    return create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=16)


def lora_fa(model: Any) -> torch.optim.Optimizer:
    return create_lorafa_optimizer(model, r=4, lora_alpha=8, lr=1e-2)


@dataclass(frozen=True)
class Kind:
    """`note` is what a reader has to know; `refused` is in the message where the kind cannot be served."""

    lora: dict[str, Any] = field(default_factory=dict)
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adamw_of
    note: str = ""
    refused: str = ""
    second_adapter: bool = False

    def build(self) -> PeftModel:
        model = tiny_bert()
        torch.manual_seed(1)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": BERT_TARGETS, "task_type": "SEQ_CLS"} | self.lora
        lora = get_peft_model(model, LoraConfig(**settings))
        if self.second_adapter:
            lora.add_adapter("other", LoraConfig(r=2, target_modules=["query", "value"]))
        return lora


RESIDUAL = "it moves a part of the base weights into the adapter, which would leave with it"

KINDS: dict[str, Kind] = {
    "plain LoRA": Kind(),
    "rsLoRA": Kind({"use_rslora": True}),
    "LoRA+ (optimizer)": Kind(optimizer=lora_plus),
    "LoRA-FA (optimizer)": Kind(optimizer=lora_fa, note="A is frozen: credit is that of B alone"),
    "`modules_to_save`": Kind({"modules_to_save": ["pooler"]}, note="trained and saved as ever, and not counted"),
    "`layers_to_transform`": Kind({"layers_to_transform": [1], "target_modules": ["query", "value", "key"]}),
    "`rank_pattern`, `alpha_pattern`": Kind({"rank_pattern": {"query": 2}, "alpha_pattern": {"query": 32}}),
    "`lora_bias`": Kind({"lora_bias": True}, note="the bias belongs to the adapter, and leaves with it"),
    "`trainable_token_indices`": Kind({"trainable_token_indices": {"word_embeddings": [1, 2]}}),
    "several adapters": Kind(second_adapter=True, note="the active one is chosen from; the others are not touched"),
    "`init_lora_weights='gaussian'`": Kind({"init_lora_weights": "gaussian"}),
    "orthogonal initialisation": Kind({"init_lora_weights": "orthogonal"}),
    "PiSSA": Kind({"init_lora_weights": "pissa"}, refused=RESIDUAL),
    "OLoRA": Kind({"init_lora_weights": "olora"}, refused=RESIDUAL),
    "DoRA": Kind({"use_dora": True}, refused="one scalar gate cannot serve (DoraLinear)"),
}
