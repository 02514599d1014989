"""What PEFT could not save, seen before a run is lost to it."""

from collections.abc import Iterable
from typing import Any

from peft.utils.constants import EMBEDDING_LAYER_NAMES

from .errors import ModelError

__all__ = ["check_saves"]


def check_saves(base: Any, names: Iterable[str]) -> None:
    """Raise a `ModelError` if adapters on these modules could not be saved.

    PEFT takes a module for an embedding if its name is that of one (`lm_head`), and saves the model's input embeddings
    with its adapter. A CTC model of speech has an `lm_head`, and no embeddings.

    Args:
        base: The model that PEFT has adapted.
        names: The adapted modules, by their full names in it.
    """
    ends = [name for name in names if name.rpartition(".")[2] in EMBEDDING_LAYER_NAMES]
    if not ends or not hasattr(base, "get_input_embeddings"):
        return
    try:
        base.get_input_embeddings()
    except NotImplementedError as error:
        raise ModelError(
            f"adapter {ends[0]!r} could not be saved: PEFT takes a module of this name for an embedding and saves the "
            f"input embeddings with it, but {type(base).__name__} has none. Move it to modules_to_save."
        ) from error
