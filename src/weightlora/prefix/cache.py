"""Runs a model's frozen prefix once for each example, and reads its output from disk in later epochs."""

import contextlib
import functools
import inspect
import os
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ModelError, TrainingError
from .checks import check_prefix, room_in
from .cut import adapters_in, identity_of
from .places import BARE, entering, passed_over, without_dropout
from .rows import Rows, ropes_of, rows_of
from .store import Store

__all__ = ["PrefixCache"]


class PrefixCache:
    """Stores the output of the frozen blocks below the lowest trained one, and skips these blocks for stored examples.

    Open it when the choice is final, around your training loop. The first epoch runs the whole model and writes the
    input of block `first`. Later epochs read it. Examples are identified by their content, so the order of the data
    may change. In each pass over the data, the first batch that could be read is computed again and compared.
    Evaluation reads what is stored, and writes nothing.

    Args:
        model: A model whose lowest blocks are frozen, such as a PEFT model after its adapters were chosen.
        directory: Where hidden states are stored. A later run with the same model and lowest block uses them again.
        max_bytes: The most bytes that all processes store together. None means 90 % of the free disk.
        prefix_dropout: `"refuse"` raises an error if the frozen blocks have dropout. `"off"` trains without dropout in
            them, which is less regularization.
        examples: Number of training examples. After that many without a hit, the cache warns and switches itself off.
        tokens: Number of training tokens, to check before training whether they fit.

    Attributes:
        first: The lowest block that runs for a cached example.
        reads: Training batches that were read.
        fills: Training batches that ran through the whole model.

    Raises:
        WeightLoraError: The model cannot be cached, the directory has hidden states of another model, or it has no
            room.

    Example:
        ```python
        with PrefixCache(model, "out/prefix_cache"):
            for epoch in range(3):
                for batch in loader:
                    model(**batch).loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
        ```
    """

    def __init__(
        self,
        model: nn.Module,
        directory: str | os.PathLike[str],
        max_bytes: int | None = None,
        *,
        prefix_dropout: str = "refuse",
        examples: int | None = None,
        tokens: int | None = None,
    ) -> None:
        self._cut = check_prefix(model, directory, max_bytes, prefix_dropout, tokens)
        self.first = self._cut.first
        if self.first == 0:
            raise ModelError("block 0 trains, so nothing below it is frozen: leave the cache of the prefix out.")
        self.directory, self.reads, self.fills = Path(directory) / f"block-{self.first}", 0, 0
        self._limit, self._examples, self._off = room_in(self.directory, max_bytes), examples, prefix_dropout == "off"
        self._store: Store | None = None
        self._idle, self._missed, self._due = False, 0, True
        self._seen: set[bytes] = set()
        self._form, self._ropes = BARE, ropes_of(getattr(self._cut.backbone, "config", None))
        self._padding_checked = False

    @property
    def nbytes(self) -> int:
        """Bytes of hidden states that this process has written; 0 while the cache is closed."""
        return 0 if self._store is None else self._store.nbytes

    def __enter__(self) -> "PrefixCache":
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self) -> None:
        """Begin: open the files, and run the model's forward pass through the cache."""
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        process = dist.get_rank() if world > 1 else 0
        self._store = Store(self.directory, identity_of(self._cut), self._limit // world, process)
        backbone: Any = self._cut.backbone
        self._forward: Callable[..., Any] = backbone.forward
        self._before = vars(backbone).get("forward")
        self._signature = inspect.signature(self._forward)
        self._ours = _Attached(backbone, self._run)
        backbone.forward = self._ours

    def close(self) -> None:
        """End: give the model its own forward pass back, and close the files. A second call does nothing."""
        if self._store is None:
            return
        backbone: Any = self._cut.backbone
        if vars(backbone).get("forward") is self._ours:
            del backbone.forward
            if self._before is not None:
                backbone.forward = self._before
        self._store.close()
        self._store = None

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """The backbone's forward pass while the cache is open."""
        training, store = self._cut.backbone.training, self._store
        if store is None or torch.compiler.is_compiling():
            return self._forward(*args, **kwargs)
        with without_dropout(self._cut.prefix) if training and self._off else contextlib.nullcontext():
            rows = self._rows_of(args, kwargs, training)
            if rows is None:
                self._count_miss(1, training)
                return self._forward(*args, **kwargs)
            kept = self._has_all(store, rows)
            if training:
                if self._seen.issuperset(rows.keys):  # another pass over the data
                    self._seen, self._due, self._padding_checked = set(), True, False
                self._seen.update(rows.keys)
            if kept and not self._due and (states := _read(store, rows)) is not None:
                self.reads += training
                return self._read_run(states, args, kwargs)
            return self._fill_run(store, rows, args, kwargs) if training else self._forward(*args, **kwargs)

    def _rows_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> Rows | None:
        """The examples of a call; None if it must run all blocks."""
        if self._idle or self._asks_for_all():
            return None
        if (adapters := adapters_in(self._cut)) is None:  # unfrozen, or another training has begun
            if training and torch.is_grad_enabled():
                self._stop(f"something below block {self.first} trains now")
            return None
        return rows_of(self._signature, args, kwargs, adapters, self._ropes)

    def _has_all(self, store: Store, rows: Rows) -> bool:
        if not all(key in store for key in rows.keys):
            store.refresh()  # another process may have met it
        return all(key in store for key in rows.keys)

    def _asks_for_all(self) -> bool:
        config = getattr(self._cut.backbone, "config", None)
        return any(getattr(config, f"output_{name}", False) for name in ("hidden_states", "attentions"))

    def _read_run(self, states: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def swap(hidden: Tensor) -> Tensor:
            found = states.to(hidden.device, non_blocking=True)
            return found.requires_grad_(hidden.requires_grad and torch.is_grad_enabled())

        if "use_cache" in list(self._signature.parameters)[len(args) :]:  # blocks that do not run have no keys to keep
            kwargs = kwargs | {"use_cache": False}
        with passed_over(self._cut.blocks, self.first, self._form, swap):
            return self._forward(*args, **kwargs)

    def _fill_run(self, store: Store, rows: Rows, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        met: list[Tensor] = []
        padding = rows.padding()

        def swap(hidden: Tensor) -> Tensor:
            met.append(hidden.detach())
            fits = hidden.dim() == 3 and hidden.shape[:2] == padding.shape
            if fits and torch.is_grad_enabled() and not self._padding_checked and padding.any():
                hidden = hidden if hidden.requires_grad else hidden.detach().requires_grad_()
                hidden.register_hook(lambda grad: self._check_padding(grad, padding))
                self._padding_checked = True
            return hidden

        with entering(self._cut.blocks, self.first, swap) as form:
            output = self._forward(*args, **kwargs)
        if len(met) > 1 or len(form) > 1:
            self._stop(f"block {self.first} or the one below it runs more than once in a forward pass")
            return output
        if not (met and form and met[0].dim() == 3 and met[0].shape[:2] == padding.shape):
            shape = tuple(met[0].shape) if met else "none"
            self._stop(
                f"blocks hand on hidden states of shape {shape} for {len(padding)} x {rows.length} tokens, or more "
                "than hidden states"
            )
            return output
        self._form = form[0]
        states = met[0].cpu()
        spans = enumerate(zip(rows.keys, rows.spans, strict=True))
        own = {key: states[row, start:end] for row, (key, (start, end)) in spans}
        if all(key in store for key in own) and self._is_same(store, rows, states):
            self._due, self.reads = False, self.reads + 1
        else:
            self.fills += 1
            self._keep(store, {key: tensor for key, tensor in own.items() if key not in store})
        return output

    def _is_same(self, store: Store, rows: Rows, states: Tensor) -> bool:
        """Whether what is kept is whole.

        Raises:
            TrainingError: It differs from what was computed now by more than rounding.
        """
        kept = _read(store, rows)
        if kept is None:
            return False
        real = ~rows.padding()
        new, old = states[real].float(), kept[real].float()
        far = ((new - old).norm(dim=-1) / new.norm(dim=-1).clamp_min(1e-12)).max().item()
        precisions = {states.dtype, rows.precision or states.dtype}
        allowed = max(torch.finfo(precision).eps for precision in precisions) ** 0.5
        if not far <= allowed:
            raise TrainingError(
                f"the hidden states at block {self.first} differ from those in {self.directory} by {far:.2g} of their "
                f"size (rounding explains {allowed:.2g}): something below that block has changed since, so delete "
                "the directory, and leave everything below the lowest adapter as it is."
            )
        return True

    def _keep(self, store: Store, states: dict[bytes, Tensor]) -> None:
        if not store.full:
            store.add(states)
            if store.full and self.reads:
                _warn(f"{self.directory} is full after {len(store)} examples: give a larger max_bytes.")
        self._count_miss(len(states), True)

    def _count_miss(self, examples: int, training: bool) -> None:
        """Stop if no example comes again."""
        if self._idle or self.reads or not training or self._store is None:
            return
        self._missed += examples
        if self._store.full:
            self._stop(f"{self.directory} is full before a batch came again: give a larger max_bytes")
        elif self._examples is not None and self._missed > self._examples:
            self._stop(
                f"no batch came again after {self._missed} examples of {self._examples}: packing or augmentation that "
                "changes in each epoch cannot be cached"
            )

    def _check_padding(self, grad: Tensor, padding: Tensor) -> None:
        """Stop if the loss depends on hidden states at padded places, which are not kept.

        Raises:
            TrainingError: If batches were read before.
        """
        there = grad[padding.to(grad.device)]
        if not (there[there.isfinite()] != 0).any():
            return
        why = (
            "the loss depends on hidden states of padding, which are not kept: mask padding in the labels (-100) and "
            "in pooling"
        )
        if self.reads > 1:
            raise TrainingError(f"{why}, and train again: {self.reads} batches were read.")
        self._stop(why)

    def _stop(self, why: str) -> None:
        _warn(f"the cache of the prefix is switched off, and the training goes on without it: {why}.")
        self._idle = True


class _Attached:
    """Stands for a module's `forward`. A copy of the module gets its own class's one back."""

    def __init__(self, module: nn.Module, run: Callable[..., Any]) -> None:
        functools.update_wrapper(self, module.forward)
        self._module, self._run = module, run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo[id(self._module)]
        return types.MethodType(type(copied).forward, copied)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _read(store: Store, rows: Rows) -> Tensor | None:
    """The hidden states of a batch with zeros at its padding; None if some are damaged."""
    _, width, dtype = store.layout(rows.keys[0])
    states = torch.zeros(len(rows.keys), rows.length, width, dtype=dtype)
    for row, (key, (start, end)) in enumerate(zip(rows.keys, rows.spans, strict=True)):
        if key not in store or store.layout(key) != (end - start, width, dtype):
            return None
        if not store.read_into(key, states[row, start:end]):
            return None
    return states
