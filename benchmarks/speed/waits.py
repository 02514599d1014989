"""Where the host waits for a GPU in a step of training."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .variants import Variant

WAITED = ("forward", "backward", "optimizer", "selector")
"""Parts of a step. Our hooks on the optimizer are a part of `optimizer` here; a place tells what waits."""
SAID = "called a synchronizing CUDA operation"


def find_waits(variant: Variant, batch: Mapping[str, Tensor]) -> dict[str, list[str]] | None:
    """The places where the host waits for the device in each part of a step, once for each time.

    None without CUDA, and where a step has several forward passes.
    """
    if not batch["input_ids"].is_cuda or variant.pieces > 1:
        return None
    step, found = variant.parts(batch), {}
    for part in WAITED:
        with recorded_waits() as found[part]:
            next(step)
    next(step, None)
    return found


@contextlib.contextmanager
def recorded_waits() -> Iterator[list[str]]:
    """A list to which, at the end, the file and line of each wait are added. Torch does not notice all of them."""
    places: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)
    places += [f"{Path(one.filename).name}:{one.lineno}" for one in said if SAID in str(one.message)]
