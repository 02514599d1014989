"""Export a saved adapter for servers: read, refuse what cannot be kept, write, check, and only then put in place."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CHAT_TEMPLATE_DIR

from ..directories import replacing_directory
from ..errors import ConfigError, DataError
from ..extras import require
from ..files import is_of_writing, resolved, write_json
from ..run import TRAINED, check_empty
from ..tensors import DTYPES, dtype_name
from ..values import check_known
from .base import Base, is_lost
from .checks import Outputs, attach, check_shapes, check_tables, compare_outputs, compare_pairs, outputs, probe_batch
from .features import check_features, check_tied, inside_name, tied_name, transposed_name
from .gguf import ARCHITECTURES, convert, read_gguf, write_gguf
from .groups import complete, incomplete
from .merged import write_merged
from .mlx import named_for_mlx, read_mlx, write_mlx
from .pairs import PREFIX, Pair, common_rank
from .peft_layout import write_compact, write_portable
from .servers import Verdict, verdicts
from .source import Source, check_final, find_adapter, read_source

PROFILES = ("portable", "compact", "merged", "mlx", "gguf")
CHECKS = ("logits", "tensors")
RECORD = "export.json"


@dataclass(frozen=True)
class Exported:
    """What was exported, and how it was checked.

    Attributes:
        directory: Where the export was written.
        profile: Its layout.
        adapters: Number of adapted modules and parameters; 0 if they are merged.
        completed: Number of adapters with zeros that complete a fused group.
        rank: The largest rank.
        dtype: Dtype of the written tensors.
        difference: The largest relative difference (Frobenius norm) between `s B A` as the reader scales it and the
            source's; None for a merged model, whose saved weights equal the merged ones bit by bit.
        outputs: How close the outputs on a batch of random tokens are; None if only tensors were compared.
        servers: How each server scales the files, by its own rules; empty for a merged model.

    Example:
        ```python
        exported = export_adapter("runs/first/adapter", "out/exported")
        print([verdict.server for verdict in exported.servers if verdict.alike])  # those that read it as PEFT does
        ```
    """

    directory: Path
    profile: str
    adapters: int
    completed: int
    rank: int
    dtype: str
    difference: float | None
    outputs: Outputs | None
    servers: tuple[Verdict, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as values of JSON."""
        found = asdict(self)
        found["directory"] = str(self.directory)
        found["outputs"] = None if self.outputs is None else self.outputs._asdict()
        found["servers"] = [verdict._asdict() for verdict in self.servers]
        return found


def export_adapter(
    adapter_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    profile: str = "portable",
    *,
    base: str | None = None,
    dtype: str | None = None,
    complete_fused: bool = False,
    check: str = "logits",
    llama_cpp: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a saved LoRA adapter in a layout that a server scales as PEFT does.

    The export is compared with the source before the directory is put in place. After an error nothing is left behind.

    Args:
        adapter_dir: A PEFT checkpoint, or a run directory that holds one in `adapter/`.
        out_dir: Created; it may exist if it is empty.
        profile: `"portable"`, `"compact"`, `"merged"`, `"mlx"` or `"gguf"`; `docs/export.md` says which server reads
            which.
        base: Directory or hub id of the base model, if not the one that the adapter names.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`. None takes float32, or the adapter's own where that loses
            nothing; and for `"merged"` the base's.
        complete_fused: Add zeros for the missing modules of a partly adapted group (queries, keys and values; gate and
            up), which SGLang needs. Only for profiles that PEFT reads.
        check: `"logits"` also compares the outputs of the model on random tokens, with plain PEFT, which loads the
            base; `"tensors"` only compares the tensors. Profiles `"mlx"` and `"gguf"` always compare tensors only.
        llama_cpp: Directory of llama.cpp's sources, whose converter is used for profile `"gguf"`.
        overwrite: Replace an earlier export. Another directory that is not empty is refused all the same.

    Returns:
        What was written, how close it is, and which servers read it as PEFT does.

    Raises:
        ConfigError: If a setting is unknown or does not fit the profile.
        DataError: If the adapter cannot be read, or the directory cannot be written.
        MissingPackageError: If profile `"gguf"` is asked for, and gguf is not installed or too old for the model.
        ModelError: If the profile cannot hold the adapter, the base is not found, or the export differs.

    Example:
        ```python
        weightlora.export_adapter("runs/first/adapter", "served", profile="portable")
        ```
    """
    _check_settings(profile, dtype, check, complete_fused)
    target = resolved(out_dir)
    check_empty(target, overwrite, RECORD, "export", "add --overwrite (in Python overwrite=True)", TRAINED)
    directory = find_adapter(adapter_dir)
    if target in (directory.resolve(), *directory.resolve().parents):
        raise DataError(f"{out_dir} is the adapter itself, or holds it: give another directory.")
    folders = (path for path in target.iterdir() if path.is_dir()) if target.is_dir() else ()
    if inside := min((path for path in folders if path.name != CHAT_TEMPLATE_DIR), default=None):
        raise DataError(
            f"{inside} is a directory, which no export makes, so {out_dir} is not overwritten: move it away."
        )
    check_final(directory)
    source = read_source(directory, base)
    if base is not None and is_lost(source.config.base_model_name_or_path):  # readers look for the base there
        source = replace(source, raw={**source.raw, "base_model_name_or_path": base, "revision": None})
    check_features(source, profile)
    optional = profile in ("portable", "compact") and not (complete_fused or source.tables)
    names = [pair.name for pair in source.pairs]
    model = Base(source.config, base, source.heads, optional, names)
    for name in (model.name, llama_cpp):
        if name and Path(name).is_dir() and target in (place := Path(name).resolve(), *place.parents):
            raise DataError(f"{out_dir} is, or holds, {name}, which the export needs: give another directory.")
    check_tied(source, model, profile)
    with _in_one_sentence(target), replacing_directory(target) as staging:
        found = _export(
            source, model, staging, profile, DTYPES[dtype] if dtype else None, complete_fused, check, llama_cpp
        )
        exported = replace(found, directory=target)
        record = exported.to_dict() | {"source": str(directory), "versions": _versions()}
        write_json(staging / RECORD, record)
    return exported


def _export(
    source: Source,
    base: Base,
    staging: Path,
    profile: str,
    dtype: torch.dtype | None,
    complete_fused: bool,
    check: str,
    llama_cpp: str | os.PathLike[str] | None,
) -> Exported:
    """Write into the directory, and check what is there."""
    if source.tables and profile != "merged":  # which writes them
        check_tables(source.tables, base.load())
    if profile == "merged":
        kind, same = write_merged(source, base, staging, dtype, check == "logits")
        return Exported(staging, profile, 0, 0, common_rank(source.pairs), dtype_name(kind), None, same, ())
    dtype = dtype or _dtype_of(source)
    pairs = source.pairs
    if complete_fused and incomplete(pair.name for pair in pairs):
        pairs = complete(pairs, base.skeleton())
    close: Outputs | None = None
    servers: tuple[Verdict, ...] = ()
    if profile == "mlx":
        if base.is_found():
            check_shapes(source.pairs, base.skeleton())
        pairs = named_for_mlx(pairs, base)
        write_mlx(pairs, staging, dtype)
        written = read_mlx(staging)
        apart = compare_pairs(pairs, written, dtype)
    elif profile == "gguf":
        written = _gguf(source, base, staging, dtype, llama_cpp)
        apart = compare_pairs(source.pairs, written, dtype)
    else:
        (write_portable if profile == "portable" else write_compact)(source, pairs, staging, dtype)
        again = read_source(staging, base.given)
        written = again.pairs
        apart = compare_pairs(source.pairs, written, dtype)
        tied = tied_name(source, base, known=check == "logits")
        transposed = transposed_name(source, base if check == "logits" else None)
        servers = verdicts(again.config, written, sorted(_modules(again)), tied, transposed, inside_name(source, base))
        close = _compare(source, again, base, dtype) if check == "logits" else None
    completed, rank = len(pairs) - len(source.pairs), max(pair.rank for pair in written)
    return Exported(staging, profile, len(written), completed, rank, dtype_name(dtype), apart, close, servers)


def _gguf(
    source: Source, base: Base, staging: Path, dtype: torch.dtype, llama_cpp: str | os.PathLike[str] | None
) -> list[Pair]:
    config = base.config()
    check_shapes(source.pairs, base.skeleton())
    if llama_cpp is None and config.model_type in ARCHITECTURES:
        write_gguf(source.pairs, staging, dtype, config)
    else:
        portable = staging / "portable"
        portable.mkdir()
        write_portable(source, source.pairs, portable, dtype)
        convert(portable, staging, dtype, str(base.name), None if llama_cpp is None else Path(llama_cpp))
        shutil.rmtree(portable)
    return read_gguf(staging, source.pairs, config.get_text_config())


def _compare(source: Source, again: Source, base: Base, dtype: torch.dtype) -> Outputs:
    """Compare the outputs of the base with the source adapter and with the export, both by plain PEFT."""
    model = base.load()
    batch = probe_batch(model)
    without = outputs(model, batch)
    before = outputs(attach(model, source.directory, [pair.name for pair in source.pairs]), batch)
    del model  # one base at a time is in memory; PEFT has loaded what the source holds into this one
    after = outputs(attach(base.load(), again.directory, [pair.name for pair in again.pairs]), batch)
    return compare_outputs(before, after, dtype, without)


def _dtype_of(source: Source) -> torch.dtype:
    """The adapter's own dtype where folding the scalings into B loses nothing; else float32."""
    own = {tensor.dtype for pair in source.pairs for tensor in (pair.a, pair.b)}
    dtype = own.pop()
    if own or dtype not in DTYPES.values():
        return torch.float32
    scaled = (pair.b.double() * pair.scaling for pair in source.pairs)
    return dtype if all(torch.equal(b.to(dtype).double(), b) for b in scaled) else torch.float32


def _modules(source: Source) -> set[str]:
    """Names of the modules that are saved whole."""
    return {key.removeprefix(PREFIX).rpartition(".")[0] for key in source.heads}


def _check_settings(profile: str, dtype: str | None, check: str, complete_fused: bool) -> None:
    for name, value, known in (("profile", profile, PROFILES), ("dtype", dtype, DTYPES), ("check", check, CHECKS)):
        if value is not None:
            check_known(name, value, known)
    if profile == "gguf":
        require("gguf")
    if complete_fused and profile not in ("portable", "compact"):
        raise ConfigError(
            f"complete_fused adds nothing that profile {profile!r} needs: leave it out, or choose 'portable'."
        )


@contextmanager
def _in_one_sentence(target: Path) -> Iterator[None]:
    """What the operating system says of writing becomes an error of this package."""
    try:
        yield
    except Exception as error:
        if not is_of_writing(error):
            raise
        raise DataError(f"{target} cannot be written ({error}): nothing was left there.") from error


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("weightlora", "peft", "torch", "transformers")}
