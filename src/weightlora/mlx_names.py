"""What mlx-lm calls the modules of a model that also reads images or audio: it keeps the language model alone."""

from collections.abc import Iterable

__all__ = ["mlx_name", "reads_more_than_text"]

INNER, WHOLE = "model.language_model.", "language_model."
"""Where Transformers keeps the language model without its head, and with it."""


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
    if name.startswith(INNER):
        return f"{WHOLE}model.{name.removeprefix(INNER)}"
    if name.startswith(("model.layers.", "model.embed_tokens", "lm_head")):
        return WHOLE + name
    return name if name.startswith(WHOLE) else None
