"""Workloads of MiniLM-L6 with a fresh head for classes, or for one number.

The 36 linear modules of the encoder may be adapted, or also the pooler, with `all-linear`: PEFT leaves the head out.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from weightlora.train.demo import ENCODER_LINEARS, load_reviews, minilm_path
from weightlora.train.families.classification import classification, regression
from weightlora.train.tasks import TaskInfo
from weightlora.train.work import Source, Work

from . import definitions, emails, films, snippets
from .workload import Workload

CLASSES = TaskInfo("text-classification", metrics=("accuracy", "f1_macro"), class_names=("negative", "positive"))
FILMS = replace(CLASSES, class_names=films.CLASSES)
SPAM = replace(CLASSES, class_names=emails.CLASSES)
SUPERSENSES = replace(CLASSES, class_names=definitions.CLASSES)
VALENCE = TaskInfo("regression", metrics=("pearson", "spearman"))


def _classes(source: Source, experiment: Mapping[str, Any]) -> Work:
    return classification(source)


def _number(source: Source, experiment: Mapping[str, Any]) -> Work:
    return regression(source)


def reviews(name: str, target_modules: str = ENCODER_LINEARS) -> Workload:
    """Sentiment of the reviews `"rotten_tomatoes"` or `"imdb"`."""
    return Workload(minilm_path, lambda: load_reviews(name), CLASSES, _classes, target_modules)


def valence(name: str, target_modules: str = ENCODER_LINEARS) -> Workload:
    """Valence of `"tweets"`, `"products"` or `"editorials"`, a regression."""
    return Workload(minilm_path, lambda: snippets.load_splits(name), VALENCE, _number, target_modules)


def film_reviews() -> Workload:
    """Good reviews, bad reviews and plots of films, three classes."""
    return Workload(minilm_path, films.load_splits, FILMS, _classes, "all-linear")


def spam() -> Workload:
    """Spam or ham, by the body of an e-mail."""
    return Workload(minilm_path, emails.load_splits, SPAM, _classes, "all-linear")


def supersenses() -> Workload:
    """The semantic field of a word, by its definition: 38 classes."""
    return Workload(minilm_path, definitions.load_splits, SUPERSENSES, _classes, "all-linear")
