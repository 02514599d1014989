"""Tasks to train and evaluate on: one small module a family, one registry.

A task is a `Task`: named splits of plain rows. A family adds its own by an entry in `LOADERS`; reading the
data happens in `load_task`, never at import.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import sentiment, tweets

__all__ = ["LOADERS", "Task", "load_task"]


@dataclass(frozen=True)
class Task:
    """Rows of one data set, split once and for all.

    Attributes:
        name: its key in `LOADERS`.
        splits: `"train"`, `"validation"` and `"test"`, each a list of rows. Settings are chosen on validation;
            test is for the numbers that get reported.
        num_labels: number of classes; 1 for regression.
        tokenize: `tokenize(rows, tokenizer, max_length)` makes what `transformers.Trainer` takes as a data set.
    """

    name: str
    splits: Mapping[str, list[dict[str, Any]]]
    num_labels: int
    tokenize: Callable[..., list[dict[str, Any]]]


def _sentiment(name: str) -> Task:
    return Task(name, sentiment.load_splits(name), num_labels=2, tokenize=sentiment.tokenize)


def _tweets(name: str) -> Task:
    return Task(name, tweets.load_splits(), num_labels=1, tokenize=sentiment.tokenize)


LOADERS: dict[str, Callable[[str], Task]] = {
    **dict.fromkeys(sentiment.SPLIT_SIZES, _sentiment),
    "vader_tweets": _tweets,
}


def load_task(name: str) -> Task:
    """Reads a task.

    Raises:
        ValueError: no such task, or its data is not installed.
    """
    if name not in LOADERS:
        raise ValueError(f"no task is called {name!r}; there are {', '.join(sorted(LOADERS))}")
    return LOADERS[name](name)
