"""Choices on tiny models of many kinds, for the tests of what becomes of a choice."""

from collections.abc import Callable
from typing import Any

import torch
from models import adamw, lora_bert, lora_gpt2, lora_mixtral, lora_zoo, tiny_llama, train
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from weightlora import Selection, WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters


def start(
    model: PeftModel | None = None, lr: float = 1e-2, state=None, run_dir=None, **settings
) -> tuple[PeftModel, torch.optim.Optimizer, WeightLora]:
    """A model, its optimizer, and a selection with these settings."""
    model = lora_bert() if model is None else model
    optimizer = adamw(model, lr)
    return model, optimizer, WeightLora(model, optimizer, WeightLoraConfig(**settings), state, run_dir=run_dir)


def selected(model=None, steps: int = 4, **settings) -> WeightLora:
    """A selection that is over after two steps, and two more steps of training."""
    model, optimizer, selector = start(model, **{"keep": 3, "select_steps": 2} | settings)
    train(model, optimizer, selector, steps)
    return selector


def chosen(model: PeftModel, keep: int = 5, seed: int = 0) -> Selection:
    """A random choice among the adapters of a model."""
    return Selection.of(start(model, keep=keep, selection="random", select_steps=0, seed=seed)[2])


def edited(selection: Selection, kept: list[str], **fields: Any) -> Selection:
    """The same run with another choice."""
    values = selection.to_dict() | fields
    rank, scaling = next((row["rank"], row["scaling"]) for row in values["adapters"] if row["kept"])
    for row in values["adapters"]:
        on = row["name"] in kept
        row.update(kept=on, omega=float(on), rank=rank if on else None, scaling=scaling if on else None)
    return Selection.from_dict(values)


def lora_llama(layers: int = 2, **lora) -> PeftModel:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | lora
    return get_peft_model(tiny_llama(layers=layers), LoraConfig(**settings))


def lora_t5(**lora) -> PeftModel:
    """An encoder and a decoder whose blocks go by the same numbers."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 50}
    settings = {"r": 4, "target_modules": ["q", "v", "wo"], "task_type": "SEQ_2_SEQ_LM"} | lora
    return get_peft_model(T5ForConditionalGeneration(T5Config(**sizes)), LoraConfig(**settings))


class Twins(nn.Module):
    """A model with a second one inside, in which the same names come again, with a prefix."""

    def __init__(self, inner: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 8), "down": nn.Linear(8, 8)}) for _ in range(3))
        if inner:
            self.draft = Twins(inner=False)


def lora_twins(**lora) -> PeftModel:
    settings = {"r": 4, "target_modules": r"layers\.\d+\.(up|down)"} | lora
    return get_peft_model(Twins(), LoraConfig(**settings))


class Odd(nn.Module):
    """Names with characters that mean something to Python, YAML and regular expressions."""

    NAMES = ('quo"te', "back\\slash", "a b", "d-o_t+", "par(en", "l\nine", "é", "x#y", "${path}", "null")

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.ModuleDict({name: nn.Linear(4, 4) for name in self.NAMES})


def lora_odd(**lora) -> PeftModel:
    return get_peft_model(Odd(), LoraConfig(**{"r": 4, "target_modules": r"part\.[\s\S]+"} | lora))


PATTERNS = {"rank_pattern": {"q_proj": 2, "down_proj": 6}, "alpha_pattern": {"k_proj": 3, "q_proj": 5}}
CASES: dict[str, Callable[[], tuple[Selection, nn.Module]]] = {
    name: lambda make=make, keep=keep: (chosen(make(), keep), make().unload())
    for name, (make, keep) in {
        "BERT": (lora_bert, 5),
        "one module": (lora_bert, 1),
        "Llama with layers 1 and 11": (lambda: lora_llama(12), 30),
        "ranks and alphas that differ": (lambda: lora_llama(4, **PATTERNS), 16),
        "rsLoRA": (lambda: lora_llama(use_rslora=True, **PATTERNS), 9),
        "GPT-2's Conv1D": (lora_gpt2, 4),
        "embedding and convolutions": (lora_zoo, 3),
        "encoder and decoder": (lora_t5, 7),
        "experts": (lora_mixtral, 5),
        "a name that ends another's": (lora_twins, 3),
        "odd names": (lora_odd, 10),
        "DoRA with dropout": (lambda: lora_llama(use_dora=True, lora_dropout=0.1), 5),
        "a head trained in full": (lambda: lora_llama(modules_to_save=["lm_head"]), 5),
    }.items()
}
"""Kind of model -> a choice on it, and its base model."""


def adapted(model: nn.Module) -> dict[str, tuple[int, float]]:
    """Rank and scaling of each adapter on a model."""
    return {a.name: (a.rank, a.scaling) for a in find_adapters(model, "default", check=False)}


def kept_settings(config: Any, selection: Selection) -> bool:
    """Whether a config of PEFT has the other settings of a run that most tools have, or PEFT's defaults of them."""
    defaults = {"use_dora": False, "lora_dropout": 0.0}
    return all(getattr(config, name) == selection.lora.get(name, default) for name, default in defaults.items())


def wanted(selection: Selection) -> dict[str, tuple[int, float]]:
    """What `adapted` must be."""
    return {name: (rank, selection.scalings[name]) for name, rank in selection.ranks.items()}
