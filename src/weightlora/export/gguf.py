"""The profile `gguf`: a LoRA file for llama.cpp, and for what is built on it.

llama.cpp scales every adapter by `alpha / rank` with one alpha and the rank of the tensor (`src/llama-adapter.h`,
`get_scale`), so all adapters get one rank, and alpha equals it. For the architectures in `ARCHITECTURES` the file is
written here; for others llama.cpp's own converter makes it, from the portable adapter.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, MissingPackageError, ModelError
from .pairs import Pair, common_rank, difference, fold

FILE = "adapter.gguf"
CONVERTER = "convert_lora_to_gguf.py"
EMBEDDING = "token_embd.weight"


ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "smollm3": "smollm3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "phi3": "phi3",
}
"""`model_type` -> llama.cpp's name of an architecture that is written without the converter. Each was compared with
what the converter writes."""

PERMUTED = {"llama", "smollm3"}
"""Architectures in which llama.cpp reorders the rows of the queries and keys in each head."""


def write_gguf(pairs: Sequence[Pair], directory: Path, dtype: torch.dtype, config: Any) -> None:
    """Write `adapter.gguf` for an architecture of `ARCHITECTURES`.

    Args:
        pairs: What to write; linear layers and the input embedding.
        directory: Exists.
        dtype: Of A and B.
        config: Transformers' config of the base model.

    Raises:
        MissingPackageError: If the installed gguf is too old for the architecture.
        ModelError: If llama.cpp has no tensor for one of the modules.
    """
    import gguf

    architecture, rank = ARCHITECTURES[config.model_type], common_rank(pairs)
    names = _tensor_names(pairs, architecture, config)
    writer = gguf.GGUFWriter(directory / FILE, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    kind = _type_of(dtype)
    for pair in pairs:
        folded = fold(pair, rank, dtype)
        a, b = folded.a, folded.b
        if architecture in PERMUTED and (heads := _heads(pair.name, config)):
            b = _permute(b, heads)
        if names[pair.name] == EMBEDDING:
            a = a.T
        for suffix, tensor in ((".lora_a", a), (".lora_b", b)):
            data = gguf.quants.quantize(tensor.float().contiguous().numpy(), kind)
            writer.add_tensor(names[pair.name] + suffix, data, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def convert(portable: Path, directory: Path, dtype: torch.dtype, base: str, llama_cpp: Path | None) -> None:
    """Write `adapter.gguf` by llama.cpp's own converter, for any architecture that it knows.

    Args:
        portable: The directory of the portable adapter.
        directory: Exists.
        dtype: Of A and B.
        base: Directory or hub id of the base model, of which the converter reads the config.
        llama_cpp: The directory of llama.cpp's sources.

    Raises:
        ConfigError: If the directory is missing or has no converter.
        ModelError: If the converter fails; its last line says why.
    """
    if llama_cpp is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigError(
            f"profile 'gguf' writes adapters for {known} by itself, and this base is another one: give the sources of "
            "llama.cpp, which convert it, with --llama_cpp DIR (in Python llama_cpp=...)."
        )
    script = llama_cpp / CONVERTER
    if not script.is_file():
        raise ConfigError(f"{llama_cpp} has no {CONVERTER}: give the directory of llama.cpp's sources.")
    where = ["--base", base] if Path(base).is_dir() else ["--base-model-id", base]
    kind = ["--outtype", _type_of(dtype).name.lower()]
    command = [sys.executable, str(script), *where, *kind, "--outfile", str(directory / FILE), str(portable)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (directory / FILE).is_file():
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no message"]
        raise ModelError(f"llama.cpp's {CONVERTER} cannot convert the adapter: {lines[-1].strip()}.")


def read_gguf(directory: Path, pairs: Sequence[Pair], config: Any) -> list[Pair]:
    """The adapters of `adapter.gguf` as llama.cpp applies them, with the rows in the order of the given pairs.

    Args:
        directory: Holds the file.
        pairs: What was exported.
        config: Transformers' config of the base model.

    Raises:
        ModelError: If an adapter is missing, or there is another one.
    """
    from gguf.gguf_reader import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(directory / FILE)
    architecture = reader.fields["general.architecture"].contents()
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    tensors = {
        tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()) for tensor in reader.tensors
    }
    names = _tensor_names(pairs, architecture, config)
    found = []
    for pair in pairs:
        a, b = (tensors.pop(f"{names[pair.name]}.lora_{letter}", None) for letter in "ab")
        if a is None or b is None:
            raise ModelError(f"{FILE} has no adapter for {pair.name!r} after it was written: report this as a bug.")
        if names[pair.name] == EMBEDDING:
            a = a.T
        scaling = alpha / b.shape[1] if alpha else 1.0
        found.append(_aligned(replace(pair, a=a, b=b, rank=b.shape[1], scaling=scaling), pair, config))
    if tensors:
        raise ModelError(f"{FILE} has a tensor {next(iter(tensors))!r} that no adapter has: report this as a bug.")
    return found


def _aligned(read: Pair, pair: Pair, config: Any) -> Pair:
    """The pair with its rows in PEFT's order, where llama.cpp keeps those of the queries and keys in another one."""
    if (heads := _heads(pair.name, config)) is None or read.b.shape[0] % (2 * heads):
        return read
    back = replace(read, b=_unpermute(read.b, heads))
    return min(read, back, key=lambda one: difference(pair, one))


def _tensor_names(pairs: Sequence[Pair], architecture: str, config: Any) -> dict[str, str]:
    import gguf

    number = next((number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    if number is None:
        raise MissingPackageError(
            f"gguf {version('gguf')} does not know the architecture {architecture!r}: update it with "
            "`pip install --upgrade gguf`."
        )
    table = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    names = {pair.name: table.get_name(f"{pair.name}.weight", try_suffixes=(".weight",)) for pair in pairs}
    for name, found in names.items():
        if found is None:
            raise ModelError(
                f"llama.cpp has no tensor for the module {name!r} of a {architecture} model: choose profile 'merged', "
                "or train without this module."
            )
    return {name: str(found) for name, found in names.items()}


def _heads(name: str, config: Any) -> int | None:
    """The number of heads in the rows of a module; None for one that is not made of heads."""
    last = name.rpartition(".")[2]
    if last == "q_proj":
        return int(config.num_attention_heads)
    if last == "k_proj":
        return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    return None


def _permute(b: Tensor, heads: int) -> Tensor:
    """From the order of Transformers, halves of a head one after the other, to llama.cpp's, pairs of neighbours."""
    return b.reshape(heads, 2, b.shape[0] // heads // 2, *b.shape[1:]).swapaxes(1, 2).reshape(b.shape)


def _unpermute(b: Tensor, heads: int) -> Tensor:
    return b.reshape(heads, b.shape[0] // heads // 2, 2, *b.shape[1:]).swapaxes(1, 2).reshape(b.shape)


def _type_of(dtype: torch.dtype) -> Any:
    from gguf import GGMLQuantizationType as Type

    return {torch.float32: Type.F32, torch.float16: Type.F16, torch.bfloat16: Type.BF16}[dtype]
