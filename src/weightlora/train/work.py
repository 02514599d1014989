"""What a family makes from rows for a Trainer, and the checks that all families share."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor
from transformers import EvalPrediction, PreTrainedTokenizerBase

from .. import __version__
from ..errors import ConfigError, DataError, ModelError
from .settings import DataArguments
from .tasks import TaskInfo

IGNORED = -100
"""The label of a token that is not to be predicted, for torch and Transformers."""

LONGEST = 2**24
"""Tokens of an input where the model has no limit."""

AFTER_PADDING = frozenset(
    {
        *("camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"),
        *("xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
"""Types of models that count positions from the number of the pad token on, so that the first ones are lost."""

Metrics = Callable[[EvalPrediction], dict[str, float]]
Preprocess = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Source:
    """What a family needs: the task, its arguments, the rows by split, the tokenizer and the model's config."""

    task: TaskInfo
    arguments: DataArguments
    splits: Mapping[str, Dataset]
    tokenizer: PreTrainedTokenizerBase
    config: Any


@dataclass(frozen=True)
class Work:
    """A task that is ready to train on.

    Attributes:
        auto_class: The class of Transformers that loads the model.
        task_type: The task type of PEFT.
        train: Tokenized rows.
        evaluation: Tokenized rows by split.
        collate: Makes a batch of rows.
        metrics: `compute_metrics` by split.
        reported: Names of all reported metrics, besides `held_out_loss`. The first one is compared.
        units: Metric -> `"fraction"` or `"percent"`, of which more is better; other metrics have no unit.
        config: Settings of the model's config, such as `id2label`.
        preprocess: `preprocess_logits_for_metrics`, if the logits are too large to keep.
        label_names: `TrainingArguments.label_names`.
        forced: Where metrics are of generated text, `preprocess` and `metrics` of a second evaluation, for
            `held_out_loss`: the model predicts each token of the right text from the ones before it.
        guess_losses: Split -> the loss of the best guess that reads no text. Empty where no labels give one.
        aside: Tokenized rows by split that only other runs are evaluated on.
        max_tokens: What longer rows are cut to; 0 if none is cut.
        max_target: What longer targets are cut to; 0 if none is cut.
    """

    auto_class: str
    task_type: str
    train: Dataset
    evaluation: Mapping[str, Dataset]
    collate: Callable[[list[dict[str, Any]]], Any]
    metrics: Mapping[str, Metrics]
    reported: tuple[str, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    label_names: Sequence[str] = ("labels",)
    forced: tuple[Preprocess, Metrics] | None = None
    guess_losses: Mapping[str, float] = field(default_factory=dict)
    aside: Mapping[str, Dataset] = field(default_factory=dict)
    max_tokens: int = 0
    max_target: int = 0

    @property
    def metric(self) -> str:
        """Name of the metric that is compared."""
        return self.reported[0]

    @property
    def full_rows(self) -> int:
        """Number of training rows of `max_tokens` tokens: they were cut, or just fit."""
        return self._of_length("input_ids", self.max_tokens)

    @property
    def full_targets(self) -> int:
        """Number of training rows whose target has `max_target` tokens."""
        return self._of_length("labels", self.max_target)

    def _of_length(self, column: str, tokens: int) -> int:
        if not tokens:
            return 0
        chunks = self.train.with_format("arrow")[:][column].chunks  # as lists, large data would take seconds
        return sum(int((np.diff(chunk.offsets) == tokens).sum()) for chunk in chunks)


Tokenize = Callable[[str, dict[str, Any], Any], dict[str, Any]]


def tokenized(source: Source, tokenize: Tokenize, batched: bool = True) -> tuple[Dataset, dict[str, Dataset]]:
    """The training rows, and by split the rows to evaluate on, as a function makes them.

    Args:
        source: Its rows.
        tokenize: Takes a split, a batch of its rows and their numbers. Gives the new columns of these rows.
        batched: If False, `tokenize` takes and gives one row.

    Raises:
        DataError: Datasets would keep the new rows where it cannot find them again.
    """
    for place in {str(Path(one["filename"]).parent) for rows in source.splits.values() for one in rows.cache_files}:
        if "{" in place:  # a first run would work, and the next one fail
            raise DataError(
                f"the prepared rows go to {place}, and Datasets reads the curly bracket in this path as a pattern: "
                "rename the directory, or give another --cache_dir."
            )
    made = {
        split: rows.map(
            partial(_call, __version__, tokenize, split),
            batched=batched,
            with_indices=True,
            remove_columns=rows.column_names,
        )
        for split, rows in source.splits.items()
    }
    return made.pop("train"), made


def _call(version: str, tokenize: Tokenize, *arguments: Any) -> dict[str, Any]:
    """Call the function. The version is there for the cache of datasets, which knows our functions by name only.

    So a new version of this package does not read rows that an older one made.
    """
    return tokenize(*arguments)


def padding(source: Source, target: int = 0) -> dict[str, Any]:
    """How collators pad: to the longest row of a batch, or always to `max_length` with `pad_to_max_length`.

    Targets are padded to the length that inputs are, so inputs are padded to the longest target if that is longer.

    The longest row is rounded up to a multiple of 8, if the model has so many positions.

    Args:
        source: The arguments, the tokenizer and the model's config.
        target: The longest target, if there are targets to pad.
    """
    length = source.arguments.max_length
    if source.arguments.pad_to_max_length:
        return {"padding": "max_length", "max_length": max(length, target)}
    fits = math.ceil(max(length, target) / 8) * 8 <= _limit(source)
    return {"padding": True, "pad_to_multiple_of": 8 if fits else None}


def padder(source: Source, side: str = "right") -> PreTrainedTokenizerBase:
    """The tokenizer, padding on the right, where no position of a token changes: else results depend on the batch."""
    tokenizer = copy.copy(source.tokenizer)
    tokenizer.padding_side = side
    return tokenizer


def room_for(source: Source, name: str = "max_length") -> int:
    """The length that inputs are cut to.

    Raises:
        ConfigError: It is longer than the model or its tokenizer allows, or too short for a text.
    """
    length: int = getattr(source.arguments, name)
    if length > (limit := _limit(source)):
        raise ConfigError(f"{name}={length} is longer than the model's {limit} positions: give at most {limit}.")
    if length < 4:
        raise ConfigError(f"{name}={length} leaves no room for a text between the special tokens: give at least 4.")
    return length


def check_embeddings(work: Work, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a `ModelError` if the model has no embedding for the pad token, or for a token of the rows."""
    size = getattr(config, "vocab_size", None)
    if size is None or len(tokenizer) <= size:
        return
    pad: Any = tokenizer.pad_token_id
    splits = (work.train, *work.evaluation.values(), *work.aside.values())
    token = max(pad, max(max(ids, default=0) for rows in splits for ids in rows["input_ids"]))
    if token >= size:
        other = f"give another --pad_token, {token_to_pad(tokenizer)}"
        remedy = other if token == pad else "give its own tokenizer"
        raise ModelError(
            f"the tokenizer has number {token} for {tokenizer.convert_ids_to_tokens(token)!r}, and the model has "
            f"embeddings for numbers below {size}: {remedy}."
        )


def token_to_pad(tokenizer: PreTrainedTokenizerBase) -> str:
    """Which token a user may give as the pad token."""
    end = tokenizer.eos_token
    return "one of its vocabulary" if end is None else f"such as its end of text {end!r}"


def _has_no_positions(config: Any) -> bool:
    """Whether a model knows distances between tokens only, as T5 and DeBERTa do, so that any length is in reach.

    Their configs and tokenizers still name the length of pretraining.
    """
    t5 = getattr(config, "relative_attention_num_buckets", None) and not getattr(
        config, "max_position_embeddings", None
    )
    return bool(t5) or getattr(config, "position_biased_input", True) is False


def _limit(source: Source) -> int:
    """The most tokens of an input."""
    config = source.config
    if _has_no_positions(config):
        return LONGEST
    limits = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    if limits[0] and getattr(config, "model_type", None) in AFTER_PADDING:
        limits[0] -= (config.pad_token_id or 0) + 1
    # XLNet says -1: it has no limit.
    return min(LONGEST, *(value for value in (*limits, source.tokenizer.model_max_length) if value and value > 0))
