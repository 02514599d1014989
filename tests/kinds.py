"""The kinds of LoRA that people use: how each is built, and whether it works. docs/support.md has a table of them."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from models import BERT_TARGETS, adamw, batch, tiny_bert, tiny_llama
from peft import LoraConfig, LoraGAConfig, PeftModel, create_arrow_model, get_peft_model
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer
from peft.tuners.lora.config import (
    ArrowConfig,
    BdLoraConfig,
    EvaConfig,
    KasaConfig,
    MontecloraConfig,
    VeloraConfig,
)
from peft.tuners.lora.eva import initialize_lora_eva_weights
from peft.tuners.lora.loraga import preprocess_loraga
from peft.tuners.lora.variants import QALoraLinearVariant
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers import BertForSequenceClassification, BitsAndBytesConfig

from weightlora.adapters import find_adapters

Optimizer = torch.optim.Optimizer
LLAMA = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}


@dataclass(frozen=True)
class Kind:
    """`note` is for readers of the docs. The other texts are parts of error messages: `refused` if nothing works,
    `no_gates` if selection by gates does not work, `no_growth` if expansion does not, `no_probe` if a probe does not.
    """

    lora: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    refused: str = ""
    no_gates: str = ""
    no_growth: str = ""
    no_probe: str = ""
    optimizer: Callable[[Any], Optimizer] = adamw
    base: Callable[[], nn.Module] = tiny_bert
    make: Callable[[Any, LoraConfig], PeftModel] = get_peft_model
    batch: Callable[[int], dict[str, Tensor]] = batch
    needs: str = "peft"

    def build(self) -> PeftModel:
        base = self.base()
        torch.manual_seed(1)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": BERT_TARGETS, "task_type": "SEQ_CLS"} | self.lora
        return self.make(base, LoraConfig(**settings))


def lora_plus(model: Any) -> Optimizer:
    return create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=16)


def lora_fa(model: Any) -> Optimizer:
    return create_lorafa_optimizer(model, r=4, lora_alpha=8, lr=1e-2)


def with_another(base: Any, config: LoraConfig) -> PeftModel:
    model = get_peft_model(base, config)
    model.add_adapter("other", LoraConfig(r=2, target_modules=["query", "value"]))
    return model


def eva(base: Any, config: LoraConfig) -> PeftModel:
    model = get_peft_model(base, config)
    data = [{**batch(step), "labels": None} for step in range(8)]
    initialize_lora_eva_weights(model, data, show_progress_bar=False)
    assert model.peft_config["default"].rank_pattern, "the ranks must differ, or this shows nothing"
    return model


def corda(base: Any, config: LoraConfig) -> PeftModel:
    from peft.tuners.lora.corda import preprocess_corda  # needs attrs, which PEFT does not ask for

    preprocess_corda(base, config, run_model=lambda: [base(**batch(step, size=1)) for step in range(8)])
    return get_peft_model(base, config)


def lora_ga(base: Any, config: LoraConfig) -> PeftModel:
    preprocess_loraga(base, config, lambda: base(**batch()).loss.backward())
    return get_peft_model(base, config)


def loftq(base: Any, config: LoraConfig) -> PeftModel:
    """PEFT's own initialisation needs a GPU; what tells it is in the config."""
    model = get_peft_model(base, config)
    model.peft_config["default"].init_lora_weights = "loftq"
    return model


def qalora(base: Any, config: LoraConfig) -> PeftModel:
    """PEFT has it for GPTQ's layers, which need a GPU; the variant itself is at home on any linear layer."""
    model = get_peft_model(base, config)
    for module in model.modules():
        if hasattr(module, "lora_variant"):
            module.lora_variant["default"] = QALoraLinearVariant()
            QALoraLinearVariant.init(module, "default", config)
    return model


def arrow(base: Any, config: LoraConfig) -> PeftModel:
    with tempfile.TemporaryDirectory() as directory:
        get_peft_model(copy.deepcopy(base), config).save_pretrained(directory)
        return create_arrow_model(base, [directory, directory], ArrowConfig(top_k=1))


def quantized(bits: int) -> BertForSequenceClassification:
    settings = BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["classifier", "pooler"],
    )
    with tempfile.TemporaryDirectory() as directory:
        tiny_bert().save_pretrained(directory)
        return BertForSequenceClassification.from_pretrained(directory, quantization_config=settings, device_map="cpu")


def loftq_on_4_bit(base: Any, config: LoraConfig) -> PeftModel:
    """What `replace_lora_weights_loftq` does, which computes on a GPU alone: A and B begin as the rounding error's."""
    model = get_peft_model(base, config)
    whole = tiny_bert()
    for adapter in find_adapters(model):
        error = whole.get_submodule(adapter.name).weight - dequantize_module_weight(adapter.layer.get_base_layer())
        u, s, vh = torch.linalg.svd(error.detach() / adapter.scaling, full_matrices=False)
        root = s[: adapter.rank].sqrt()
        for factor, value in zip(adapter.factors, (root[:, None] * vh[:4], u[:, :4] * root), strict=True):
            factor.data = value.contiguous()
    return model


def attention() -> nn.Module:
    return nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2)})


def language(step: int) -> dict[str, Tensor]:
    rows = batch(step)
    rows["input_ids"][:, 4] = 7  # what aLoRA is invoked by
    return {**rows, "labels": rows["input_ids"]}


NOT_ZERO = "does not start from 0"
RESIDUAL = "it moves a part of the base weights into the adapter, which would leave with it"
NO_GATES = "is of a kind that a gate cannot switch off"
NO_GROWTH = "is of a kind whose rank cannot grow"
CANNOT_LEAVE = "is of a kind that cannot be disconnected"
BIAS = "PEFT does not save the trained bias of a module whose adapter is gone"
BLOCKS = BdLoraConfig(
    target_modules_bd_a=["output.dense"], target_modules_bd_b=["query", "key"], nblocks=2, match_strict=False
)
BITS_AND_BYTES = {"needs": "bitsandbytes"}

KINDS: dict[str, Kind] = {
    "plain LoRA": Kind(),
    "rsLoRA": Kind({"use_rslora": True}),
    "LoRA+ (optimizer)": Kind(optimizer=lora_plus),
    "LoRA-FA (optimizer)": Kind(optimizer=lora_fa, note="A is frozen, so credit counts B alone"),
    "`modules_to_save`": Kind(
        {"modules_to_save": ["pooler"]},
        note="PEFT trains and saves these modules as usual; the budget does not count them",
    ),
    "`layers_to_transform`": Kind({"layers_to_transform": [1], "target_modules": ["query", "value", "key"]}),
    "`layer_replication`": Kind({**LLAMA, "layer_replication": [(0, 2), (1, 2)]}, base=tiny_llama, batch=language),
    "`rank_pattern`, `alpha_pattern`": Kind({"rank_pattern": {"query": 2}, "alpha_pattern": {"query": 32}}),
    "`lora_bias`": Kind({"lora_bias": True}, note="the bias belongs to the adapter and is removed with it"),
    "`bias='all'`": Kind(
        {"bias": "all"},
        note="PEFT trains and saves the biases as usual; the budget does not count them; refused if another adapter "
        "is on the same modules: PEFT would not load them all",
    ),
    "`bias='lora_only'`": Kind({"bias": "lora_only"}, refused=BIAS),
    "`trainable_token_indices`": Kind({"trainable_token_indices": {"word_embeddings": [1, 2]}}),
    "several adapters": Kind(make=with_another, note="selects from the active adapter and does not touch the others"),
    "`ensure_weight_tying`": Kind(
        {**LLAMA, "target_modules": ["embed_tokens", "lm_head", "q_proj"], "ensure_weight_tying": True},
        refused="shares a parameter with another adapter",
        base=lambda: tiny_llama(tied=True),
    ),
    "`init_lora_weights=False`": Kind({"init_lora_weights": False}, no_probe=NOT_ZERO),
    "`init_lora_weights='gaussian'`": Kind({"init_lora_weights": "gaussian"}),
    "orthogonal initialisation": Kind({"init_lora_weights": "orthogonal"}, no_probe=NOT_ZERO),
    "EVA": Kind(
        {"init_lora_weights": "eva", "eva_config": EvaConfig(use_label_mask=False)},
        make=eva,
        note="ranks differ between modules from the start; build the optimizer after `initialize_lora_eva_weights`",
    ),
    "PiSSA": Kind({"init_lora_weights": "pissa"}, refused=RESIDUAL),
    "PiSSA, fast": Kind({"init_lora_weights": "pissa_niter_4"}, refused=RESIDUAL),
    "OLoRA": Kind({"init_lora_weights": "olora"}, refused=RESIDUAL),
    "CorDA": Kind({"init_lora_weights": "corda"}, make=corda, refused=RESIDUAL, needs="attr"),
    "LoRA-GA": Kind(
        {"init_lora_weights": "lora_ga", "lora_ga_config": LoraGAConfig()}, make=lora_ga, refused=RESIDUAL
    ),
    "LoftQ (`init_lora_weights`)": Kind(
        make=loftq,
        refused="it quantizes the base weights and puts the correction into the adapter, which would leave with it",
    ),
    "LoftQ on a 4-bit base (`replace_lora_weights_loftq`)": Kind(
        base=lambda: quantized(4),
        make=loftq_on_4_bit,
        note="removing an adapter also removes its correction of the quantization, which credit does not measure",
        no_probe=NOT_ZERO,
        **BITS_AND_BYTES,
    ),
    "a 4-bit base (bitsandbytes)": Kind(base=lambda: quantized(4), **BITS_AND_BYTES),
    "an 8-bit base (bitsandbytes)": Kind(base=lambda: quantized(8), **BITS_AND_BYTES),
    "DoRA": Kind(
        {"use_dora": True}, note="the magnitude belongs to the adapter and is removed with it", no_gates=NO_GATES
    ),
    "DoRA on a 4-bit base": Kind({"use_dora": True}, base=lambda: quantized(4), no_gates=NO_GATES, **BITS_AND_BYTES),
    "aLoRA": Kind({**LLAMA, "alora_invocation_tokens": [7]}, base=tiny_llama, batch=language),
    "MiCA": Kind({"init_lora_weights": "mica"}, note="B is frozen, so credit counts A alone", no_growth=NO_GROWTH),
    "BD-LoRA": Kind({"use_bdlora": BLOCKS}, no_growth=NO_GROWTH),
    "VeLoRA": Kind({"velora_config": VeloraConfig(num_groups=2)}, no_gates=NO_GATES),
    "MonteCLoRA": Kind(
        {"monteclora_config": MontecloraConfig(buffer_size=4)},
        note="the sampler belongs to the adapter",
        no_gates=NO_GATES,
        no_growth=NO_GROWTH,
    ),
    "KaSA": Kind({"kasa_config": KasaConfig()}, refused=f"{CANNOT_LEAVE} (KasaLinear)"),
    "QA-LoRA": Kind(
        {"use_qalora": True, "qalora_group_size": 4}, make=qalora, refused=f"{CANNOT_LEAVE} (QALoraLinear)"
    ),
    "Arrow": Kind(make=arrow, refused=f"{CANNOT_LEAVE} (ArrowLinear)"),
    "`nn.MultiheadAttention`": Kind(
        {"target_modules": ["attention"], "task_type": None},
        refused="is on nn.MultiheadAttention, where two LoRA layers share one name",
        base=attention,
    ),
}
