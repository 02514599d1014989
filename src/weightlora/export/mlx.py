"""The profile `mlx`: the layout that mlx-lm reads with `--adapter-path`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..errors import ModelError
from ..files import read_json, write_json
from ..mlx_names import mlx_name, mlx_name_of_text, reads_more_than_text, type_by_names
from .base import Base
from .pairs import Pair, common_rank, fold

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"


def named_for_mlx(pairs: Sequence[Pair], base: Base) -> list[Pair]:
    """The pairs by mlx-lm's names, which differ for models that also read images or audio, and for some others.

    The config of the base tells such a model, or else the names do.

    Raises:
        ModelError: If mlx-lm does not have one of the modules.
    """
    if base.is_found():
        config = base.config()
        kind, inside = config.model_type, config.get_text_config() is not config
    else:
        names = [pair.name for pair in pairs]
        kind, inside = type_by_names(names), reads_more_than_text(names)
    if kind == "gemma3n":
        return list(pairs)
    named = []
    for pair in pairs:
        if (name := mlx_name(pair.name) if inside else mlx_name_of_text(pair.name, kind)) is None:
            why = "mlx-lm has the language model alone" if inside else "mlx-lm has no module of this name"
            raise ModelError(
                f"the adapter on {pair.name!r} cannot be exported to profile 'mlx': {why}. Choose profile 'portable', "
                "or train without this module."
            )
        named.append(replace(pair, name=name))
    return named


def write_mlx(pairs: Sequence[Pair], directory: Path, dtype: torch.dtype) -> None:
    """Write the adapter for mlx-lm, which has one rank and one scale for all modules: the common rank, and 1.

    With `num_layers` 0, mlx-lm looks for the modules by their full names (`mlx_lm/tuner/utils.py` of 0.32.2).
    """
    rank = common_rank(pairs)
    folded = [fold(pair, rank, dtype) for pair in pairs]
    tensors = {f"{pair.name}.lora_a": pair.a.mT.contiguous() for pair in folded}
    tensors |= {f"{pair.name}.lora_b": pair.b.mT.contiguous() for pair in folded}
    save_file(tensors, directory / WEIGHTS)
    parameters = {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": [pair.name for pair in pairs]}
    write_json(directory / CONFIG, {"fine_tune_type": "lora", "num_layers": 0, "lora_parameters": parameters})


def read_mlx(directory: Path) -> list[Pair]:
    """The adapter as mlx-lm reads it: `scale * (x lora_a) lora_b`, with one rank and one scale."""
    settings = read_json(directory / CONFIG)["lora_parameters"]
    tensors = load_file(directory / WEIGHTS)
    return [
        Pair(
            name,
            name,
            "linear",
            tensors[f"{name}.lora_a"].mT,
            tensors[f"{name}.lora_b"].mT,
            settings["rank"],
            settings["scale"],
        )
        for name in settings["keys"]
    ]
