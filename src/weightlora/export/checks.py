"""Check an export before it is reported: the same `s B A` of each adapter, and the same outputs of the model."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

from ..adapters import find_adapters
from ..errors import ModelError
from ..tensors import dtype_name
from ..wording import first_line
from .base import BASE, TENSORS
from .pairs import PREFIX, Pair, difference

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""How far the product of a pair may be from the source's, by the dtype that it is written in: relative, in norm."""

ROUNDING = 10
"""How much further outputs may be: they pass through all layers."""

TOKENS, SEED = 32, 0


class Outputs(NamedTuple):
    """How close the outputs of two models are on one batch.

    Attributes:
        difference: The largest absolute difference.
        largest: The largest absolute output of the source.
        effect: The largest absolute difference that the source adapter itself makes to its base.
    """

    difference: float
    largest: float
    effect: float


def compare_pairs(source: Iterable[Pair], written: Iterable[Pair], dtype: torch.dtype) -> float:
    """The largest relative difference between what each adapter adds to its weight, before and after.

    Args:
        source: The adapters of the source, with their scalings.
        written: Those of the export, as its reader scales them. Adapters that the source does not have must add 0.
        dtype: That they are written in.

    Raises:
        ModelError: If one is missing, or further away than the dtype explains.
    """
    after = {pair.name: pair for pair in written}
    largest = 0.0
    for pair in source:
        found = after.pop(pair.name, None)
        if found is None:
            raise ModelError(
                f"the export has lost the adapter {pair.name!r}, so nothing was written: report this as a bug."
            )
        apart = difference(pair, found)
        if not apart <= TOLERANCES[dtype]:
            remedy = "report this as a bug" if dtype == torch.float32 else "add --dtype float32 (in Python dtype=...)"
            raise ModelError(
                f"the export of {pair.name!r} differs from the source by {apart:.1e} of its norm, and "
                f"{TOLERANCES[dtype]:g} is the most for {dtype_name(dtype)}, so nothing was written: "
                f"{remedy}."
            )
        largest = max(largest, apart)
    for name, pair in after.items():
        if pair.b.any() and pair.a.any():
            raise ModelError(f"the export has an adapter {name!r} that the source has not: report this as a bug.")
    return largest


def check_tables(tables: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise a `ModelError` if base embeddings beside the adapter are not those of the base: no server would read them.

    Embeddings of new tokens, which the base lacks, are refused, too.

    Args:
        tables: From `Source.tables`. They may be rounded to a dtype that the base can be loaded in, and nothing else:
            training moves an embedding by less than a percent.
        model: The base.
    """
    weights = dict(model.named_parameters(remove_duplicate=False))
    for key, table in tables.items():
        name = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        weight = weights.get(name)
        if weight is None:
            raise ModelError(
                f"the base has no {name!r}, with which the adapter was trained: give its base with {BASE}."
            )
        if weight.shape != table.shape:
            raise ModelError(
                f"the adapter was trained with {name!r} of shape {tuple(table.shape)}, and the base has "
                f"{tuple(weight.shape)}, as before new tokens were added: save the model that was trained, with "
                f"PeftModel.unload(), as a base, and give it with {BASE}."
            )
        if not any(torch.equal(weight.to(dtype).to(table.dtype), table) for dtype in TOLERANCES):
            raise ModelError(
                f"the adapter was trained with another {name!r} than the base has, and servers read the base's: save "
                f"PeftModel.from_pretrained(base, ADAPTER_DIR).unload() as a base, and give it with {BASE}."
            )


def check_shapes(pairs: Iterable[Pair], skeleton: nn.Module) -> None:
    """Raise a `ModelError` if the base has no module of a pair's name and shape.

    Args:
        pairs: On linear layers and embeddings; others are passed over.
        skeleton: The base without weights.
    """
    shapes = {name: tuple(weight.shape) for name, weight in skeleton.named_parameters(remove_duplicate=False)}
    for pair in pairs:
        wanted = (pair.b.shape[0], pair.a.shape[-1])
        if pair.kind == "embedding":
            wanted = wanted[::-1]
        found = shapes.get(f"{pair.name}.weight")
        if pair.kind in ("linear", "embedding") and found != wanted:
            has = "no such module" if found is None else f"one of shape {found}"
            raise ModelError(
                f"the adapter {pair.name!r} belongs to a weight of shape {wanted}, and the base has {has}: give the "
                f"base that it was trained on with {BASE}."
            )


def probe_batch(model: nn.Module) -> dict[str, Tensor]:
    """One row of random tokens of the model's vocabulary, the same ones each time.

    Raises:
        ModelError: If the model takes something other than tokens.
    """
    config: Any = model.config
    name = getattr(model, "main_input_name", "input_ids")
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    if name != "input_ids" or not vocabulary:
        raise ModelError(
            f"the base model takes {name}, and outputs are compared on random tokens: compare the tensors alone, with "
            f"{TENSORS}."
        )
    most = getattr(config.get_text_config(), "max_position_embeddings", None) or TOKENS
    length = min(TOKENS, most) if most > 0 else TOKENS  # XLNet has -1, for no bound
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(vocabulary, (1, length), generator=generator)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if not getattr(config, "is_encoder_decoder", False):
        return batch
    if isinstance(end := getattr(config, "eos_token_id", None), int):  # a classifier reads the one end of the text
        ids[ids == end] = (end + 1) % vocabulary
        ids[0, -1] = end
    return batch | {"decoder_input_ids": ids}


@torch.no_grad()
def outputs(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """All outputs of floating type, in one vector.

    Raises:
        ModelError: If the model does not run on the batch.
    """
    try:
        found = model.eval()(**batch)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the base model does not run on random tokens ({first_line(error)}): compare the tensors alone, with "
            f"{TENSORS}."
        ) from error
    values = found.values() if isinstance(found, Mapping) else [found]
    return torch.cat([v.flatten().double() for v in values if isinstance(v, Tensor) and v.is_floating_point()])


def attach(base: nn.Module, directory: str | Path, names: Sequence[str]) -> Any:
    """Put a saved adapter on a base model by plain PEFT, and return the adapted model for evaluation.

    Args:
        base: Its modules are wrapped, and PEFT loads what else the files hold into its weights: use it for no other.
        directory: Of the saved adapter.
        names: What PEFT must adapt.

    Raises:
        ModelError: If PEFT cannot load it, or adapts anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT adapts is compared below
            model = PeftModel.from_pretrained(base, str(directory)).eval()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip().rstrip(".")
        raise ModelError(
            f"PEFT cannot load {directory} on the base model, which may be another one ({reason}): give the one that "
            f"it was trained on with {BASE}."
        ) from error
    adapted = {adapter.name for adapter in find_adapters(model, "default", check=False)}
    if wrong := adapted.symmetric_difference(names):
        verb = "also adapts" if (name := min(wrong)) in adapted else "does not adapt"
        raise ModelError(
            f"PEFT {verb} {name!r} with the files in {directory}: the base may be another model, or the adapter is "
            "from a version of Transformers with other module names. Then load it with PEFT, and save it again."
        )
    return model


def compare_outputs(source: Tensor, export: Tensor, dtype: torch.dtype, base: Tensor) -> Outputs:
    """Compare the outputs of two models on one batch.

    Args:
        source: Outputs with the source adapter.
        export: Outputs with the export.
        dtype: That the export is written in.
        base: Outputs without an adapter.

    Raises:
        ModelError: If they differ by more than the dtype explains.
    """
    if source.shape != export.shape:
        raise ModelError(
            "the export has outputs of another shape than the source, so nothing was written: report this as a bug."
        )
    largest = float(source.abs().max())
    apart = float((source - export).abs().max())
    if not apart <= ROUNDING * TOLERANCES[dtype] * largest:
        finer = "" if dtype is torch.float32 else "set dtype='float32', or "
        raise ModelError(
            f"the outputs of the export differ from the source's by {apart:.2g}, where the largest is {largest:.2g}, "
            f"so nothing was written: {finer}check that the base model is the one that the adapter was trained on."
        )
    return Outputs(apart, largest, float((source - base).abs().max()))
