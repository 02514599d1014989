"""Runs a model's frozen prefix once for each example, and reads its output from disk in later epochs."""

import contextlib
import inspect
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ConfigError, ModelError
from ..values import to_bytes
from .checks import check_prefix, room_in
from .cut import adapters_in, identity_of, watched
from .epochs import Epochs
from .padding import Padding
from .places import BARE, Attached, entering, passed_over, without_dropout
from .rows import Rows, mixed, ropes_of, rows_of
from .store import Store
from .trial import check_kept, check_pass, try_model


class PrefixCache:
    """Stores the output of the frozen blocks below the lowest trained one, and skips these blocks for stored examples.

    Open it around your training loop once the choice is final. The first epoch runs the whole model and writes the
    input of block `first`. Later epochs read it. Examples are identified by their content, so the order of the data
    may change. The first batch of the first two epochs is run again, with and without the blocks below, to check that
    the model can be cached. In each epoch, the first batch that could be read is computed again and compared.
    Evaluation reads what is stored if the blocks below compute the same in evaluation mode, and writes nothing.

    Args:
        model: A model whose lowest blocks are frozen, such as a PEFT model after its adapters were chosen.
        directory: Where hidden states are stored. A later run with the same model and lowest block uses them again.
        max_bytes: The most that all processes store together: bytes, or a text such as `"6GiB"`. None means 90 %
            of the free disk.
        prefix_dropout: `"refuse"` raises an error if the frozen blocks have dropout. `"off"` trains without dropout in
            them, which is less regularization.
        examples: Rows of input in an epoch, such as two for each pair of texts. If most rows of a second or later
            epoch are new, the cache warns and switches itself off. Without it, call `end_epoch()` in your loop.
        tokens: Number of training tokens, to check before training whether they fit.

    Attributes:
        first: The lowest block that runs for a cached example.
        reads: Training batches that were read.
        fills: Training batches that ran through the whole model.

    Raises:
        WeightLoraError: The model cannot be cached, the directory has hidden states of another model, or it has no
            room (beside other caches: when it opens). What only a forward pass shows is raised at the first batch.

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
        max_bytes: int | str | None = None,
        *,
        prefix_dropout: str = "refuse",
        examples: int | None = None,
        tokens: int | None = None,
    ) -> None:
        self._max_bytes = None if max_bytes is None else to_bytes("max_bytes", max_bytes)
        self._cut = check_prefix(model, directory, self._max_bytes, prefix_dropout, tokens)
        self.first = self._cut.first
        if self.first == 0:
            raise ModelError("block 0 trains, so nothing below it is frozen: leave the prefix cache out.")
        self.directory, self.reads, self.fills = Path(directory) / f"block-{self.first}", 0, 0
        self._off = prefix_dropout == "off"
        self._ropes = ropes_of(getattr(self._cut.backbone, "config", None))
        self._store: Store | None = None
        self._idle, self._tried, self._due, self._form = False, False, True, BARE
        self._epochs = Epochs(examples)
        self._told: set[str] = set()
        self._in_eval = False
        self._padding = Padding(self._stop)

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
        if self._store is not None:
            raise ConfigError(f"the cache in {self.directory} is open: call open(), or use `with`, but not both.")
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        process = dist.get_rank() if world > 1 else 0
        room = room_in(self.directory.parent, self._max_bytes, self.directory) // world
        self._store = Store(self.directory, identity_of(self._cut), room, process)
        backbone: Any = self._cut.backbone
        self._original: Callable[..., Any] = backbone.forward
        self._before = vars(backbone).get("forward")
        self._signature = inspect.signature(self._original)
        self._ours = Attached(backbone, torch.compiler.disable(self._run))  # compiled, blocks could not be replaced
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

    def end_epoch(self) -> None:
        """Switch the cache off if most rows of a second or later epoch were new.

        Call it at the end of each epoch in your own loop, unless you set `examples`.
        """
        why = self._epochs.end()
        if why is not None and self._store is not None and not self._idle and not self._store.full:
            self._stop(why)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """The backbone's forward pass while the cache is open."""
        training, store = self._cut.backbone.training, self._store
        if store is None:
            return self._original(*args, **kwargs)
        rows = self._rows_of(args, kwargs, training)
        if not isinstance(rows, Rows):
            self._tell(rows, training)
            return self._forward(args, kwargs)
        permitted = self._padding.permits(rows)
        stored = store.read(rows) if training or self._in_eval else None
        trains = training and torch.is_grad_enabled()  # not a pass of a reference, which has the same rows
        if trains and self._epochs.count(rows.keys):
            self._begin_pass()
        if stored is not None and permitted and not self._due:
            self.reads += training
            if training:
                self._padding.count(rows)
                self._epochs.count_read(len(rows.keys))
            return self._read_run(stored, args, kwargs)
        return self._fill_run(store, rows, stored, args, kwargs) if training else self._forward(args, kwargs)

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The backbone's own forward pass, without dropout below the cut if that was accepted for the cache."""
        off = self._off and not self._idle and self._cut.backbone.training
        until = self._cut.blocks[self.first]
        with without_dropout(self._cut.prefix, until) if off else contextlib.nullcontext():
            return self._original(*args, **kwargs)

    def _rows_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> Rows | str:
        """The examples of a call; if it must run all blocks, the reason, which is empty if it was told before."""
        if self._epochs.over:
            self.end_epoch()
        if self._idle:
            return ""
        config = getattr(self._cut.backbone, "config", None)
        for name in ("output_hidden_states", "output_attentions"):
            if getattr(config, name, False):
                return f"the model's config has {name}=True"
        if (adapters := adapters_in(self._cut)) is None:  # unfrozen, or another training has begun
            if training and torch.is_grad_enabled():
                self._stop(f"something below block {self.first} trains now")
            return ""
        if (module := watched(self._cut)) is not None:
            return f"{module} has a forward hook, which would not see examples that are read"
        return rows_of(self._signature, args, kwargs, adapters, self._ropes, bool(getattr(config, "use_cache", False)))

    def _tell(self, why: str, training: bool) -> None:
        kind = why.partition("=")[0]  # a value may be another one in each batch
        if why and kind not in self._told and training and torch.is_grad_enabled():
            self._told.add(kind)
            _warn(f"the prefix cache is not used for some batches, because {why}.")

    def _begin_pass(self) -> None:
        """Another pass over the data begins: what is read first in it is to be compared."""
        self._due = True
        self._tried &= self.reads > 0  # a gate that was 0 at the first batch has moved by now

    def _read_run(self, states: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with passed_over(self._cut.blocks, self.first, self._form, partial(_in_place_of, states=states)):
            return self._forward(args, self._without_keys(args, kwargs))

    def _without_keys(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Blocks that do not run have no keys and values to keep."""
        return kwargs | ({"use_cache": False} if "use_cache" in list(self._signature.parameters)[len(args) :] else {})

    def _fill_run(
        self, store: Store, rows: Rows, stored: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        trial = None
        if not self._tried and torch.is_grad_enabled():
            call = args, self._without_keys(args, kwargs)
            run, other = (partial(self._forward, *one) for one in (call, mixed(self._signature, *call)))
            try:
                trial = try_model(run, other, self._cut, rows, self._off)
            except ModelError as error:
                self._fail(error)
                return self._forward(args, kwargs)
        met: list[Tensor] = []

        def swap(hidden: Tensor) -> Tensor:
            met.extend((hidden, hidden.detach().to("cpu", copy=True)))  # the block may change it
            if stored is not None and stored.shape == hidden.shape and self._padding.permits(rows):
                hidden = _in_place_of(hidden, stored)  # what is trained on is what would have been read
            return self._padding.watch(hidden, rows)

        with entering(self._cut.blocks, self.first, swap) as form:
            output = self._forward(args, kwargs)
        if len(met) > 2 or len(form) > 1:
            self._stop(f"block {self.first} or the one below it runs more than once in a forward pass")
            return output
        size = len(rows.keys), rows.length
        if not (met and form and met[0].dim() == 3 and met[0].shape[:2] == size):
            shape = tuple(met[0].shape) if met else "none"
            self._stop(
                f"blocks hand on hidden states of shape {shape} for {size[0]} x {size[1]} tokens, or more "
                "than hidden states"
            )
            return output
        entered, states = met
        self._form = form[0]
        if trial is not None:
            try:
                check_pass(trial, entered, states, self._cut, rows, self._off)
            except ModelError as error:
                self._fail(error)
                return output
            self._tried, self._in_eval = True, trial.in_eval
        if stored is not None:
            check_kept(states, stored, rows, self.first, self.directory)
            self._due, self.reads = not self._tried, self.reads + 1
            self._epochs.count_read(len(rows.keys))
        else:
            self.fills += 1
            found = enumerate(zip(rows.keys, rows.ends, strict=True))
            self._keep(store, {key: states[row, :end] for row, (key, end) in found if key not in store})
        return output

    def _fail(self, error: ModelError) -> None:
        """Refuse the model at the first batch; after that, go on without the cache."""
        if self.fills:
            self._stop(str(error))
        else:
            self._refuse(error)

    def _refuse(self, error: ModelError) -> None:
        raise error

    def _keep(self, store: Store, states: dict[bytes, Tensor]) -> None:
        if store.full:
            return
        store.add(states)
        if store.full and self.reads:
            _warn(f"{self.directory} is full after {len(store)} examples: give a larger max_bytes.")
        elif store.full:
            self._stop(f"{self.directory} is full before a batch came again: give a larger max_bytes")

    def _stop(self, why: str) -> None:
        _warn(f"the prefix cache is switched off, and the training goes on without it: {why}.")
        self._idle = True


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _in_place_of(hidden: Tensor, states: Tensor) -> Tensor:
    found = states.to(hidden.device, non_blocking=True, copy=True)  # the block may change it
    return found.requires_grad_(hidden.requires_grad and torch.is_grad_enabled())
