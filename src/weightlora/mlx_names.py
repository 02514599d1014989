"""What mlx-lm calls the modules of a model. It loads no adapter with other names, and skips them in its settings."""

import re
from collections.abc import Iterable

INNER, WHOLE = "model.language_model.", "language_model."
"""Where Transformers keeps the language model without its head, and with it."""

TEXT_PARTS = ("llama4_text", "qwen3_5_text", "qwen3_5_moe_text")
"""Types of language models that Transformers loads alone from a checkpoint of a model that also reads images. mlx-lm
loads the whole model (mlx_lm/models of 0.32.2)."""

ALIKE = {name: name for name in ("model.layers.", "model.embed_tokens", "lm_head", "backbone.")}
"""The beginnings of Transformers' names, and what mlx-lm has there."""
RENAMED: dict[str, dict[str, str]] = {
    "gpt_bigcode": {"transformer.": "transformer.", "lm_head": "lm_head"},
    "gpt_neox": {"gpt_neox.layers.": "model.h.", "gpt_neox.": "model.", "lm_head": "model.embed_out"},
    "gptj": {"transformer.": "model.", "lm_head": "lm_head"},
    "nemotron_h": {"model.": "backbone.", "lm_head": "lm_head"},
    **{name: {} for name in ("bailing_hybrid", "exaone", "minimax", "nanochat", "olmo")},
}
"""The same for types of models that differ; empty where mlx-lm has other modules. The names of 72 types of models were
compared (mlx_lm/models of 0.32.2, Transformers 5.24)."""
EXPERT = re.compile(r"\.experts\.\d+\.")
"""In the names of experts that are kept one by one, as in Transformers 4. mlx-lm has one module for all."""
WITH_KV_B = ("deepseek_v2", "minicpm3")
"""Models that have `kv_b_proj`, which mlx-lm splits in all others."""


def reads_more_than_text(names: Iterable[str]) -> bool:
    """Whether modules of these names are in a language model inside another model."""
    return any(name.startswith((INNER, WHOLE)) for name in names)


def mlx_name(name: str) -> str | None:
    """mlx-lm's name of a module of such a model (gemma3.py, qwen3_5.py and others in mlx_lm/models of 0.32.2).

    Args:
        name: That of Transformers 5, in the whole model or in the language model loaded alone.

    Returns:
        The name, or None for a module that mlx-lm does not have, such as one of a vision tower.
    """
    if EXPERT.search(name):
        return None
    if name.startswith(INNER):
        return f"{WHOLE}model.{name.removeprefix(INNER)}"
    if name.startswith(("model.layers.", "model.embed_tokens", "lm_head")):
        return WHOLE + name
    return name if name.startswith(WHOLE) else None


def mlx_name_of_text(name: str, model_type: str | None) -> str | None:
    """mlx-lm's name of a module of a model that only reads text, or None for a module that it does not have.

    Args:
        name: That of Transformers 5.
        model_type: Of the model's config; None if that is not known.
    """
    if EXPERT.search(name) or (name.endswith(".kv_b_proj") and model_type not in WITH_KV_B):
        return None
    for ours, theirs in RENAMED.get(model_type or "", ALIKE).items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return None


def type_by_names(names: Iterable[str]) -> str | None:
    """The type of a model where the names of its modules tell it, and mlx-lm has others."""
    return "gpt_neox" if any(name.startswith("gpt_neox.") for name in names) else None
