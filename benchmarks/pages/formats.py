"""The block for each tool, of one example, for the page on target modules."""

from collections.abc import Callable

from weightlora import Selection
from weightlora.selection import Module
from weightlora.selection.formats import FORMATS

KINDS = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
RANKS = {
    "model.layers.1.self_attn.v_proj": 8,
    "model.layers.11.self_attn.v_proj": 8,
    "model.layers.11.self_attn.o_proj": 8,
    "model.layers.28.mlp.up_proj": 16,
}
LANGUAGES = {"peft": "python", "unsloth": "py", "regex": "text", "json": "json"}
"""Language of a fence; the tests run what is called `python`. All others are YAML."""


def example() -> Selection:
    """Four of the 210 modules of SmolLM2-135M, one of them with another rank."""
    names = [f"model.layers.{layer}.{kind}" for layer in range(30) for kind in KINDS]
    rows = [
        Module(name, "module", name in RANKS, None, float(name in RANKS), RANKS.get(name), _scaling(name), 100)
        for name in names
    ]
    lora = {"r": 16, "lora_alpha": 16, "use_rslora": False, "task_type": "CAUSAL_LM"}
    return Selection(
        tuple(rows), {"selection": "credit"}, model="HuggingFaceTB/SmolLM2-135M", model_type="llama", lora=lora
    )


def _scaling(name: str) -> float | None:
    return 2.0 if name in RANKS else None


def fenced(name: str) -> str:
    """The example in one format, as a block of Markdown."""
    return f"```{LANGUAGES.get(name, 'yaml')}\n{example().to(name)}```"


TABLES: dict[str, Callable[[], str]] = {
    f"format-{name}": lambda name=name: fenced(name)  # type: ignore[misc]
    for name in FORMATS
    if name != "json"
}
