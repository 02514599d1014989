"""Families of tasks. Each has a file with a function that turns rows into work for a Trainer."""

from collections.abc import Callable
from importlib import import_module

from ...errors import ConfigError
from ...extras import explain_missing
from ..rows import check_rows
from ..work import Family, Source, Work

__all__ = ["FAMILIES", "make_work"]


def _lazily(module: str, function: str) -> Family:
    """Import a family when it is used: its metrics need libraries that other families do not."""

    def make(source: Source) -> Work:
        with explain_missing():
            family: Family = getattr(import_module(f".{module}", __name__), function)
        return family(source)

    return make


FAMILIES: dict[str, Callable[[Source], Work]] = {
    "text-classification": _lazily("classification", "classification"),
    "regression": _lazily("classification", "regression"),
    "token-classification": _lazily("tokens", "token_classification"),
    "question-answering": _lazily("answering", "question_answering"),
    "seq2seq": _lazily("seq2seq", "seq2seq"),
    "causal-lm": _lazily("causal", "causal_lm"),
    "verbalised": _lazily("verbalised", "verbalised"),
}


def make_work(source: Source) -> Work:
    """The work of the source's family; `verbalised` turns classification into a causal LM's.

    Raises:
        DataError: A row has no text where one is read.
        WeightLoraError: The task has no verbalised form, or the family refuses the data or the settings.
    """
    check_rows(source.splits)
    family = source.task.family
    if source.arguments.verbalised:
        if family != "text-classification":
            raise ConfigError(f"verbalised=True needs classes, and {source.arguments.task} is of {family}: drop it.")
        family = "verbalised"
    return FAMILIES[family](source)
