"""The profiles that PEFT reads: `portable`, one rank and scaling 1 for all modules, and `compact`, the true ranks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..adapters.outcome import EXPORT, default_and_exceptions
from ..files import write_json
from .beside import copy_beside
from .pairs import PREFIX, Pair, common_rank, fold
from .source import CONFIG, WEIGHTS, Source

PLAIN: dict[str, Any] = {
    "alpha_pattern": {},
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_ga_config": None,
    "rank_pattern": {},
    "use_rslora": False,
}
"""What every exported config says: how the adapter began is over, and its scalings are in B."""


def write_portable(source: Source, pairs: Sequence[Pair], directory: Path, dtype: torch.dtype) -> None:
    """Write the adapter with one rank for all modules, zeros where a rank is lower, and a scaling of 1.

    Args:
        source: Its config is what the written one is made from; heads are written as they are.
        pairs: What to write.
        directory: Exists, and is empty.
        dtype: Of A and B.
    """
    rank = common_rank(pairs)
    _write(source, [fold(pair, rank, dtype) for pair in pairs], directory, {"r": rank, "lora_alpha": rank})
    card = directory / "README.md"
    if card.is_file():  # every server scales this one alike
        card.write_bytes(card.read_bytes().replace(f"\n{EXPORT}\n".encode(), b""))


def write_compact(source: Source, pairs: Sequence[Pair], directory: Path, dtype: torch.dtype) -> None:
    """Write the adapter with its true ranks: `rank_pattern` and `alpha_pattern` are the same, so scalings are 1.

    The default rank is the largest and equals `lora_alpha`, so readers that ignore both patterns scale by 1, too.
    """
    rank, pattern = default_and_exceptions({pair.name: pair.rank for pair in pairs}, max)
    settings = {"r": rank, "lora_alpha": rank, "rank_pattern": pattern, "alpha_pattern": dict(pattern)}
    _write(source, [fold(pair, None, dtype) for pair in pairs], directory, settings)


def keys_of(pair: Pair) -> tuple[str, str]:
    """The names of A and B in PEFT's file."""
    if pair.kind == "embedding":
        return f"{PREFIX}{pair.path}.lora_embedding_A", f"{PREFIX}{pair.path}.lora_embedding_B"
    return f"{PREFIX}{pair.path}.lora_A.weight", f"{PREFIX}{pair.path}.lora_B.weight"


def _write(source: Source, pairs: Sequence[Pair], directory: Path, settings: Mapping[str, Any]) -> None:
    tensors: dict[str, Tensor] = {key: tensor.contiguous() for key, tensor in source.heads.items()}
    for pair in pairs:
        tensors.update(zip(keys_of(pair), (pair.a, pair.b), strict=True))
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    parameters = [pair.name for pair in pairs if pair.kind == "parameter"]
    targets = {
        "target_modules": [pair.name for pair in pairs if pair.kind != "parameter"],
        "target_parameters": parameters or None,
    }
    # The module names are in full, and in the order of the model: PEFT would write them in any order.
    write_json(directory / CONFIG, dict(sorted({**source.raw, **PLAIN, **settings, **targets}.items())))
    copy_beside(source.directory, directory)
