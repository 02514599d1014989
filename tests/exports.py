"""Saved adapters of the kinds that are exported, with random weights, and their base models beside them."""

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from models import lora_gpt2, lora_mixtral, tiny_bert, tiny_llama
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from weightlora.adapters import find_adapters

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


class Case(NamedTuple):
    """`base` makes the base model, `lora` are the settings of its adapter."""

    base: Callable[[], nn.Module]
    lora: dict[str, Any]


def llama(**lora) -> Case:
    return Case(tiny_llama, {"r": 4, "target_modules": ATTENTION + MLP, "task_type": "CAUSAL_LM"} | lora)


def gpt2() -> nn.Module:
    return lora_gpt2().unload()


def mixtral() -> nn.Module:
    return lora_mixtral().unload()


RANKS = {"v_proj": 2, "model.layers.1.mlp.up_proj": 7}
GATES = {"q_proj": 36.56, "layers.0.mlp.down_proj": -0.31, "layers.1.self_attn.o_proj": 0.0}
CHOSEN = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.layers.1.mlp.up_proj"]

CASES = {
    "plain LoRA": llama(lora_alpha=8),
    "mixed ranks": llama(lora_alpha=8, rank_pattern=RANKS),
    "gates": llama(lora_alpha=6, alpha_pattern=GATES),
    "rsLoRA with gates and ranks": llama(lora_alpha=6, alpha_pattern=GATES, rank_pattern=RANKS, use_rslora=True),
    "a few modules": llama(lora_alpha=-3, target_modules=CHOSEN, rank_pattern={"up_proj": 2}),
    "an embedding": llama(lora_alpha=5, target_modules=["embed_tokens", "q_proj"], rank_pattern={"q_proj": 3}),
    "Conv1D and a head": Case(
        gpt2,
        {"r": 2, "lora_alpha": -5, "target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 3}}
        | {"task_type": "SEQ_CLS"},
    ),
    "experts": Case(
        mixtral,
        {
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["q_proj", "o_proj"],
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
            "rank_pattern": {"down_proj": 3},
            "alpha_pattern": {"gate_up_proj": -7.5},
            "task_type": "CAUSAL_LM",
        },
    ),
    "a head": Case(
        tiny_bert,
        {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], "rank_pattern": {"query": 2}}
        | {"task_type": "SEQ_CLS"},
    ),
}
EXPERTS_AND_HEADS = {"experts", "a head", "Conv1D and a head"}


def randomize_(model: nn.Module) -> None:
    """Random A and B, so that each adapter changes the outputs."""
    torch.manual_seed(3)
    for adapter in find_adapters(model, check=False):
        for factor in adapter.factors:
            factor.data = 0.3 * torch.randn_like(factor)


def save(case: Case, directory: Path) -> Path:
    """Write `base/` and `adapter/` into the directory; returns the adapter's."""
    case.base().save_pretrained(directory / "base")
    model: PeftModel = get_peft_model(case.base(), LoraConfig(**case.lora))
    randomize_(model)
    model.peft_config["default"].base_model_name_or_path = str(directory / "base")
    model.save_pretrained(directory / "adapter")
    return directory / "adapter"


@cache
def saved(name: str) -> Path:
    """The adapter directory of a case, written once: read it only. `base/` is beside it."""
    return save(CASES[name], _root() / name)


@cache
def _root() -> Path:
    import atexit

    directory = Path(tempfile.mkdtemp(prefix="weightlora-exports-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def deltas(directory: Path, base: nn.Module) -> dict[str, torch.Tensor]:
    """What PEFT adds to each weight, dense, by the name of the module or parameter."""
    model = PeftModel.from_pretrained(base, str(directory))
    return {
        adapter.name: adapter.layer.get_delta_weight("default").detach()
        for adapter in find_adapters(model, "default", check=False)
    }


def logits(directory: Path | None, base: nn.Module) -> torch.Tensor:
    """Of the base, or with an adapter on it, on a fixed row of tokens."""
    ids = torch.arange(3, 15)[None]
    model = base if directory is None else PeftModel.from_pretrained(base, str(directory))
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def tree(directory: Path) -> dict[str, bytes | None]:
    """Every path below the directory, hidden ones too, with the bytes of the files."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }
