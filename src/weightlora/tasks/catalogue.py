"""The benchmark's workloads by name, and a user's own."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .causal import language_modelling, verbalised_sentiment
from .heads import local_classification, minilm
from .workload import Workload

__all__ = ["WORKLOADS", "load_workload"]

WORKLOADS: dict[str, Callable[[dict[str, Any]], Workload]] = {
    "rotten-tomatoes": partial(minilm, "rotten_tomatoes"),
    "imdb": partial(minilm, "imdb"),
    "vader-tweets": partial(minilm, "vader_tweets"),
    "smollm2-sentiment": partial(verbalised_sentiment, "rotten_tomatoes"),
    "smollm2-imdb-lm": partial(language_modelling, "imdb"),
}


def load_workload(experiment: dict[str, Any]) -> Workload:
    """The workload that the experiment names; with `data`, a local classification file and any model.

    Raises:
        ValueError: If there is no such task, or its data or model is missing or malformed.
    """
    if "data" in experiment:
        return local_classification(experiment)
    if experiment["task"] not in WORKLOADS:
        raise ValueError(f"task {experiment['task']!r} is unknown: choose one of {', '.join(WORKLOADS)}.")
    return WORKLOADS[experiment["task"]](experiment)
