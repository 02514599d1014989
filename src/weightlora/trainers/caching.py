"""The cache of the frozen prefix inside `transformers.Trainer`, from the final choice on."""

import contextlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.utils import logging

from ..errors import ConfigError, ModelError, WeightLoraError
from ..prefix import PrefixCache
from ..prefix.checks import check_prefix, most_bytes
from ..prefix.store import IDENTITY
from ..values import to_bytes
from .callback import WeightLoraCallback
from .calling import calling

FOLDER = "_prefix_cache"
"""Its name in the Trainer's output directory. Trainer uploads nothing that begins with an underscore."""

logger = logging.get_logger("transformers.weightlora")


class PrefixCacheCallback(TrainerCallback):
    """Stores the output of the frozen blocks below the lowest kept adapter, and reads it in later epochs.

    It starts when the choice of a `WeightLoraCallback` is final; without one, at the first step. If block 0 keeps an
    adapter, there is nothing to store: a warning says so, and the training continues without the cache. A resumed run
    uses the files in its directory. If an exception ends the training, call `close()`.

    Args:
        directory: Where hidden states are kept. None takes `_prefix_cache` in the Trainer's output directory, and
            deletes it when the training ends. A directory that you give stays.
        max_bytes: See `PrefixCache`.
        prefix_dropout: See `PrefixCache`.

    Attributes:
        cache: The `PrefixCache`, from the choice on.

    Raises:
        ConfigError: `max_bytes` is not an amount of memory.
        WeightLoraError: When training starts, if the model, its dropout, the Trainer's engine or the directory do not
            allow a cache.

    Example:
        ```python
        callbacks = [WeightLoraCallback(WeightLoraConfig(keep=2)), PrefixCacheCallback()]
        Trainer(model, args, train_dataset=data, callbacks=callbacks).train()
        ```
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        max_bytes: int | str | None = None,
        prefix_dropout: str = "refuse",
    ) -> None:
        self._directory, self._dropout = directory, prefix_dropout
        self._max_bytes = None if max_bytes is None else to_bytes("max_bytes", max_bytes)
        self.cache: PrefixCache | None = None
        self._waiting = False

    def close(self) -> None:
        """Give the model its own forward pass back."""
        self._waiting = False
        if self.cache is not None:
            self.cache.close()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()
        self.cache = None
        _check_engine(args)
        place, tokens = self._place(args), _tokens_of(getattr(kwargs.get("train_dataloader"), "dataset", None))
        cut = check_prefix(kwargs["model"], place, self._max_bytes, self._dropout, tokens)
        need = most_bytes(cut, tokens)
        logger.info(f"The prefix cache takes up to {'?' if need is None else f'{need:,}'} bytes in {place}.")
        self._waiting = True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self._waiting or not _is_chosen():
            return
        self._waiting = False
        place = self._place(args)
        try:
            cache = _Cache(kwargs["model"], place, self._max_bytes, prefix_dropout=self._dropout)
            cache.open()
        except WeightLoraError as error:
            _go_on(error)
            return
        self.cache = cache
        logger.info(f"Blocks below block {cache.first} run once for each example: {cache.directory} has their output.")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.cache is not None:
            self.cache.end_epoch()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()
        if self._directory is not None:
            return
        if args.world_size > 1 and dist.is_initialized():
            dist.barrier()  # the others read it
        if state.is_local_process_zero:  # machines need not share the disk
            _remove(self._place(args))

    def _place(self, args: TrainingArguments) -> Path:
        return Path(args.output_dir or "") / FOLDER if self._directory is None else Path(self._directory)


class _Cache(PrefixCache):
    """Once the choice is made, a model that cannot be cached does not end the training."""

    def _refuse(self, error: ModelError) -> None:
        _go_on(error)
        self._idle = True


def _go_on(error: WeightLoraError) -> None:
    warnings.warn(f"The training goes on without the prefix cache: {error}", stacklevel=2)


def _remove(place: Path) -> None:
    """Delete the caches in a directory, and the directory if nothing else is in it."""
    for cache in place.glob("block-*"):
        if any(cache.glob(f"process-*/{IDENTITY}")):
            shutil.rmtree(cache, ignore_errors=True)
    with contextlib.suppress(OSError):
        place.rmdir()


def _is_chosen() -> bool:
    """Whether the selection of this Trainer, if it has one, is over."""
    handler = calling(CallbackHandler)
    ours = [one for one in ([] if handler is None else handler.callbacks) if isinstance(one, WeightLoraCallback)]
    return all(one.selector is not None and one.selector.phase == "train" for one in ours)


def _check_engine(args: TrainingArguments) -> None:
    """Raise a `ConfigError` for what runs the model in another way than block after block in this process."""
    for name in ("deepspeed", "fsdp", "torch_compile"):
        if getattr(args, name, None):
            raise ConfigError(
                f"{name}={getattr(args, name)!r} does not go with a prefix cache, which takes blocks out of "
                "the forward pass: leave out one of them. DDP works."
            )
    if args.neftune_noise_alpha is not None:
        raise ConfigError(
            f"neftune_noise_alpha={args.neftune_noise_alpha} adds new noise to the embeddings in each step, so what "
            "the blocks above them give cannot be cached: leave out the noise, or the prefix cache."
        )
    if args.n_gpu > 1:
        raise ConfigError(f"DataParallel on {args.n_gpu} GPUs copies the model for each step: start with torchrun.")


def _tokens_of(dataset: Any) -> int | None:
    """Tokens of a training set; None if they cannot be counted without running it."""
    if not hasattr(dataset, "__len__") or "input_ids" not in (getattr(dataset, "column_names", None) or ()):
        return None
    return sum(map(len, dataset["input_ids"]))
