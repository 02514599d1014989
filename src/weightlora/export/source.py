"""Read a saved PEFT LoRA adapter: its config, its pairs `(A, B)`, and what else the files hold. No model is loaded."""

import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..adapters import LoraAdapter
from ..errors import DataError
from ..files import read_json
from ..state import STATE_FILE, State, read_state
from ..values import is_number
from ..wording import shown
from .base import Base
from .pairs import PREFIX, Kind, Pair

CONFIG, WEIGHTS = CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
KINDS = {
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "auto_mapping"), (dict, "an object")),
    **dict.fromkeys(("modules_to_save", "target_parameters"), (list | set | tuple, "a list of names")),
    "target_modules": (str | list | set | tuple, "a list of names, or an expression"),
    "base_model_name_or_path": (str, "a directory or a hub id"),
}
"""Settings of PEFT that it takes as they are, and the type that each must have."""
FACTORS = {".lora_A.weight": 0, ".lora_B.weight": 1, ".lora_embedding_A": 0, ".lora_embedding_B": 1}


@dataclass(frozen=True, eq=False)
class Source:
    """A saved adapter.

    Attributes:
        directory: Where it was read.
        config: PEFT's config.
        raw: The config as the file has it.
        pairs: The adapters, in natural order of their names.
        heads: Tensors of `modules_to_save`, by their names in the file.
        tables: Base embeddings, which PEFT saves beside an adapter on them, after a change of the vocabulary, or with
            `save_embedding_layers=True`. They are no part of the adapter.
        others: What else the file holds, by its names there.
    """

    directory: Path
    config: LoraConfig
    raw: dict[str, Any]
    pairs: list[Pair]
    heads: dict[str, Tensor]
    tables: dict[str, Tensor]
    others: dict[str, Tensor]


def find_adapter(directory: str | os.PathLike[str]) -> Path:
    """The directory of the adapter: the given one, or `adapter/` in a run directory.

    Raises:
        DataError: If neither holds an adapter in safetensors.
    """
    given = Path(directory)
    place = given if (given / CONFIG).is_file() else given / "adapter"
    if not (place / CONFIG).is_file():
        inside = min(given.glob(f"*/{CONFIG}"), default=None)  # of a name other than "default", or of a checkpoint
        such = "" if inside is None else f", such as {inside.parent}"
        raise DataError(
            f"{directory} holds no PEFT adapter (no {CONFIG}): give the directory of a saved adapter{such}."
        )
    if not (place / WEIGHTS).is_file():
        raise DataError(
            f"{place} has no {WEIGHTS}: save the adapter in safetensors, with model.save_pretrained(directory)."
        )
    return place


def check_final(directory: Path) -> None:
    """Raise a `DataError` if a selection by gates was under way when the adapter was saved; warn if another one was.

    The gates are in the scalings once the choice is final. Until then they are in the state beside the adapter, which
    PEFT and servers do not read. Other rules change no output, so their adapters can be exported before the choice.

    PEFT saves an adapter of another name than "default" in a folder of its own, and the state is above it.

    Raises:
        StateError: If that state is damaged.
    """
    place = next((place for place in (directory, directory.parent) if (place / STATE_FILE).is_file()), None)
    if place is None:
        return
    state = State.from_dict(read_state(place))
    if place != directory and state.config["adapter_name"] != directory.name:
        return  # of another adapter
    if state.round == state.config["rounds"]:
        return
    when = f"{directory} was saved after {state.step_count} of {state.config['select_steps']} selection steps"
    if any(omega not in (0, 1) for omega in state.omega):
        raise DataError(
            f"{when}, and its gates are not in the adapter yet: train on until the choice is made, and export the "
            "result."
        )
    message = f"{when}, before the choice, so the export has all {len(state.live)} adapters that it was choosing from."
    warnings.warn(message, UserWarning, stacklevel=3)


def read_source(directory: Path, base: str | None = None) -> Source:
    """Read an adapter directory.

    Args:
        directory: From `find_adapter`.
        base: Directory or hub id of the base model, if not the one that the adapter names. It is asked for where the
            adapter is on parameters (`target_parameters`).

    Raises:
        DataError: If a file is damaged, is not LoRA's, has no adapter, or its tensors do not fit the config.
        ModelError: If the base is asked for and cannot be found.
    """
    raw = read_json(directory / CONFIG, "save the adapter anew")
    if not isinstance(raw, dict) or str(raw.get("peft_type", "")).upper() != "LORA":
        kind = raw.get("peft_type") if isinstance(raw, dict) else None
        raise DataError(
            f"{directory} holds a PEFT adapter of type {kind!r}, and only LORA is exported: give a LoRA adapter."
        )
    unknown = sorted(raw.keys() - {field.name for field in fields(LoraConfig)})
    if lost := [name for name in unknown if raw[name]]:
        raise DataError(
            f"{directory / CONFIG} has {lost[0]}={raw[lost[0]]!r}, which this PEFT does not know and would ignore: "
            "install the PEFT that wrote it, or remove the entry if it changes no output."
        )
    config = _config(directory)
    try:
        tensors = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{directory / WEIGHTS} cannot be read ({error}): save the adapter anew.") from error
    factors: dict[str, dict[int, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        suffix = next((suffix for suffix in FACTORS if key.endswith(suffix)), None)
        if suffix is None or not key.startswith(PREFIX):
            others[key] = tensor
        else:
            path = key.removeprefix(PREFIX).removesuffix(suffix)
            factors.setdefault(path, {})[FACTORS[suffix]] = tensor
    if not factors:
        raise DataError(f"{directory} has no LoRA adapter in it: there is nothing to export.")
    parameters = config.target_parameters or ()
    known = Base(config, base, names=parameters).on_parameters() if parameters else {}
    embeddings = {key.removeprefix(PREFIX).removesuffix(".lora_embedding_A") for key in tensors}
    pairs = [
        _pair(directory, config, path, pair, path in embeddings, known.get(path))
        for path, pair in sorted(factors.items(), key=lambda entry: _natural(entry[0]))
    ]
    heads = {key: t for key, t in others.items() if _is_of(key, config.modules_to_save or ())}
    if config.ensure_weight_tying:  # PEFT saves the layer that is tied to one of these, too
        heads |= {key: t for key, t in others.items() if any(torch.equal(t, head) for head in heads.values())}
    rest = {key: t for key, t in others.items() if key not in heads}
    tables = {k: t for k, t in rest.items() if k.endswith(".weight") and ".lora_" not in k and t.dim() == 2}
    rest = {key: t for key, t in rest.items() if key not in tables}
    return Source(directory, config, raw, pairs, heads, tables, rest)


def by_pattern(pattern: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The value that PEFT takes for a module from `rank_pattern` or `alpha_pattern`."""
    return (pattern or {}).get(get_pattern_key(list(pattern or {}), name), default)


def _config(directory: Path) -> LoraConfig:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the tensors say decides
            config: LoraConfig = LoraConfig.from_pretrained(str(directory))
    except Exception as error:  # PEFT raises whatever a wrong value runs into
        raise DataError(
            f"{directory / CONFIG} is not a LoRA config that this PEFT reads ({error}): save the adapter anew, or "
            "install the PEFT that wrote it."
        ) from error
    for name, (kind, what) in KINDS.items():
        if (value := getattr(config, name)) is not None and not isinstance(value, kind):
            raise DataError(f"{directory / CONFIG} has {name}={shown(value)}, and it must be {what}: correct it.")
    try:
        [re.compile(key) for key in (*(config.rank_pattern or ()), *(config.alpha_pattern or ()))]
    except re.error as error:
        raise DataError(
            f"{directory / CONFIG} has the pattern {shown(error.pattern)}, no expression ({error}): correct it."
        ) from error
    return config


def _pair(
    directory: Path,
    config: LoraConfig,
    path: str,
    factors: dict[int, Tensor],
    embedding: bool,
    on_parameter: LoraAdapter | None,
) -> Pair:
    if len(factors) < 2:
        missing = "B" if 0 in factors else "A"
        raise DataError(f"{directory / WEIGHTS} has no {missing} for the adapter {path!r}: save the adapter anew.")
    a, b = factors[0], factors[1]
    if not (a.isfinite().all() and b.isfinite().all()):
        raise DataError(f"the adapter {path!r} has NaN or infinite entries, so its training diverged: train it again.")
    name = path if on_parameter is None else on_parameter.name
    kind: Kind = "embedding" if embedding else "linear" if a.dim() == 2 else "convolution"
    rank = by_pattern(config.rank_pattern, name, config.r)
    alpha = by_pattern(config.alpha_pattern, name, config.lora_alpha)
    if not isinstance(rank, int) or rank < 1:
        raise DataError(f"{directory / CONFIG} has rank {rank!r} for {name!r}: a rank is at least 1.")
    if on_parameter is not None:
        kind, blocks = "parameter", on_parameter.blocks
        stored = a.shape[0] // blocks, b.shape[1] // blocks
    else:
        blocks = rank // b.shape[1] if kind == "convolution" and b.shape[1] else 1
        stored = a.shape[0], b.shape[1] * blocks
    if stored != (rank, rank) and not config.use_bdlora:  # which stores the blocks of a block-diagonal matrix
        raise DataError(
            f"the tensors of the adapter {name!r} have shapes {tuple(a.shape)} and {tuple(b.shape)}, and rank {rank} "
            f"is in {CONFIG}: give a directory whose files belong together."
        )
    scaling = alpha / (math.sqrt(rank) if config.use_rslora else rank) if is_number(alpha) else math.nan
    if not math.isfinite(scaling):
        raise DataError(f"{directory / CONFIG} has alpha {alpha!r} for {name!r}: give a finite number.")
    return Pair(name, path, kind, a, b, rank, scaling, blocks)


def _is_of(key: str, modules: "list[str] | tuple[str, ...]") -> bool:
    """Whether a tensor belongs to one of the modules, which PEFT finds by the ends of their names."""
    parts = key.split(".")
    paths = [".".join(parts[:length]) for length in range(1, len(parts))]
    return any(path.endswith(tuple(modules)) for path in paths)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split(".")]
