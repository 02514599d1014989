"""The help of the commands that take Transformers' arguments. It does not import Transformers, which takes seconds.

It describes our own flags, and those of Transformers that people set most. `weightlora train --help_all` lists all.
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from ..train.settings import OWN, SentenceParser
from . import HelpFormatter, spellings

USUAL: dict[str, tuple[str | None, Any, str]] = {
    "output_dir": ("DIR", None, "where to write the run"),
    "learning_rate": ("X", "5e-4; 5e-5 for full", "the highest learning rate"),
    "num_train_epochs": ("X", 3.0, "passes over the training rows"),
    "max_steps": ("N", None, "optimizer steps; overrides --num_train_epochs"),
    "per_device_train_batch_size": ("N", 8, "rows of a training batch on each device"),
    "gradient_accumulation_steps": ("N", 1, "batches of an optimizer step"),
    "warmup_steps": ("N", 0, "steps in which the learning rate rises, or their share of the training if below 1"),
    "lr_scheduler_type": ("NAME", "linear", "how the learning rate falls, such as linear, cosine or constant"),
    "weight_decay": ("X", 0.0, "weight decay of the optimizer"),
    "bf16": (None, False, "compute in bfloat16"),
    "gradient_checkpointing": (None, None, "recompute activations in the backward pass, to save memory"),
    "use_cpu": (None, False, "train on the CPU even if there is a GPU"),
    "seed": ("N", 42, "of the head, the adapters and the order of the rows"),
    "logging_steps": ("N", 500, "steps between two lines of the log"),
    "eval_strategy": ("WHEN", "no", "when to evaluate during the training: no, steps or epoch"),
    "per_device_eval_batch_size": ("N", 8, "rows of an evaluation batch on each device"),
    "save_strategy": ("WHEN", "steps", "when to save checkpoints: no, steps or epoch"),
    "save_steps": ("N", 500, "steps between two checkpoints"),
    "save_total_limit": ("N", None, "number of checkpoints to keep (default: all)"),
    "resume_from_checkpoint": ("DIR", None, "continue from a checkpoint; true takes the last one of --output_dir"),
}
"""Argument of Transformers -> what stands for its value (None for a switch), its default, and what it does."""

VALUES: dict[Any, str] = {int: "N", int | None: "N", float: "X", float | None: "X"}
VALUES |= dict.fromkeys((list[str], list[str] | None), "NAME ...")
"""Type of an argument -> what stands for its value."""


def usual_parser(
    command: str,
    usage: str,
    parents: Sequence[argparse.ArgumentParser] = (),
    hidden: Collection[str] = (),
    meanings: Mapping[str, str] = {},
    **texts: Any,
) -> argparse.ArgumentParser:
    """The parser that the help of a command is printed from. It is not for parsing.

    Args:
        command: Name of the command.
        usage: What follows the name in the first line.
        parents: Parsers of more flags, which come first.
        hidden: Flags that are left out.
        meanings: What a flag means to this command, where that is something else than to `weightlora train`.
        texts: `description` and `epilog`.
    """
    parser = SentenceParser(
        prog=f"weightlora {command}",
        usage=f"weightlora {command} {usage}",
        parents=list(parents),
        formatter_class=HelpFormatter,
        **texts,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; you can give it several times")
    for arguments in OWN:
        group = parser.add_argument_group(arguments._argument_group_name)
        for field in fields(arguments):
            if field.name not in hidden:
                _add_field(group, field, meanings.get(field.name))
    group = parser.add_argument_group("training", "The most used arguments of Transformers.")
    for name, (value, default, text) in USUAL.items():
        if name not in hidden:
            _add(group, name, value, default, meanings.get(name, text))
    return parser


def is_asked(flag: str, arguments: Sequence[str]) -> bool:
    """Whether a switch is among the arguments, in one of its spellings."""
    return not {*spellings(flag), *(["-h"] if flag == "help" else [])}.isdisjoint(arguments)


def _add_field(group: Any, field: Field[Any], text: str | None) -> None:
    value = None if field.type is bool else VALUES.get(field.type, field.name.upper())
    default = field.default if field.default_factory is MISSING else " ".join(field.default_factory())
    _add(group, field.name, value, default, text or field.metadata["help"])


def _add(group: Any, name: str, value: str | None, default: Any, text: str) -> None:
    settings = {"action": "store_true"} if value is None else {"metavar": value, "default": default}
    group.add_argument(*spellings(name), help=text, **settings)
