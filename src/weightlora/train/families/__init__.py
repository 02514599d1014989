"""Families of tasks. Each has a file with a function that turns rows into work for a Trainer."""

from collections.abc import Callable
from importlib import import_module

from ...errors import ConfigError
from ...extras import explain_missing
from ..rows import check_rows
from ..work import Source, Work

__all__ = ["FAMILIES", "find_family", "make_work"]

FAMILIES = {
    "text-classification": ("classification", "classification"),
    "regression": ("classification", "regression"),
    "token-classification": ("tokens", "token_classification"),
    "question-answering": ("answering", "question_answering"),
    "seq2seq": ("seq2seq", "seq2seq"),
    "causal-lm": ("causal", "causal_lm"),
    "verbalised": ("verbalised", "verbalised"),
}
"""Family -> its file, and the function there. `verbalised` is classification by a causal LM."""


def find_family(name: str) -> Callable[[Source], Work]:
    """The function of a family. It is imported now: its metrics need libraries that other families do not."""
    module, function = FAMILIES[name]
    with explain_missing():
        family: Callable[[Source], Work] = getattr(import_module(f".{module}", __name__), function)
    return family


def make_work(source: Source) -> Work:
    """The work of the source's family.

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
    return find_family(family)(source)
