"""The arguments of a run: dataclasses beside `Seq2SeqTrainingArguments`, read from YAML files and the command line."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import HfArgumentParser, Seq2SeqTrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from ..config import WeightLoraConfig
from ..errors import ConfigError
from ..wording import first_line, nearest, shortened, shown
from .reading import read_yaml
from .settings import OWN, DataArguments, MethodArguments, ModelArguments, SentenceParser

BASE, BY_METHOD, CONFIG = "base", "by_method", "--config"
ARGUMENTS_OF = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "total_steps": "max_steps"}
"""Names in PEFT and in this package -> the argument with the same meaning."""

SECRETS = frozenset({"hub_token", "push_to_hub_token"})
"""Arguments that are written nowhere."""


GROUPS: Any = (*OWN, Seq2SeqTrainingArguments)


@dataclass(frozen=True)
class Recipe:
    """The arguments of a run.

    `given` has those that were set in files or on the command line, secrets aside, as plain values, and `typed` the
    names of those on the command line.
    """

    data: DataArguments
    model: ModelArguments
    method: MethodArguments
    training: Seq2SeqTrainingArguments
    given: dict[str, Any]
    typed: frozenset[str] = frozenset()


class _Parser(SentenceParser, HfArgumentParser):
    """A parser of dataclasses that raises a `ConfigError`."""


def make_parser(**settings: Any) -> HfArgumentParser:
    """The parser of everything but `--config`; no abbreviations, so that a misspelt name is never another one."""
    return _Parser(GROUPS, allow_abbrev=False, **settings)


def parse(arguments: Sequence[str]) -> Recipe:
    """Read `--config` files in their order, then the other arguments, which override the files.

    In a file, `base: other.yaml` reads another file first (the path is relative to this file). `by_method` has
    settings for single methods, which override the other settings of the file.

    Raises:
        ConfigError: A file is missing or is not a mapping, a name is unknown (the message has the nearest known one),
            or a value has the wrong type.
    """
    own = SentenceParser(add_help=False, allow_abbrev=False)
    own.add_argument(CONFIG, action="append", default=[])
    own.add_argument("--method")
    files, rest = own.parse_known_args(arguments)
    parser = make_parser()
    known = {action.dest for action in parser._actions} - {"help"}
    settings = read_files(files.config, files.method, known)
    rest += [] if files.method is None else ["--method", files.method]
    try:
        *groups, unknown = parser.parse_args_into_dataclasses(
            [*as_arguments(settings), *rest], return_remaining_strings=True, look_for_args_file=False
        )
    except ConfigError:
        raise
    except Exception as error:  # rules between TrainingArguments, which raise errors of many kinds
        raise ConfigError(f"the arguments do not fit together: {str(error) or type(error).__name__}") from error
    if unknown:
        name = unknown[0].split("=")[0]
        short = shortened(name)
        if not name.startswith("--"):
            raise ConfigError(f"{short!r} has no --name in front of it: write --name {short}.")
        instead = _instead(name.lstrip("-").replace("-", "_"), known, "--")
        raise ConfigError(f"{short} is not an argument{instead}.")
    typed = {action.dest for action in parser._actions if set(action.option_strings) & {a.split("=")[0] for a in rest}}
    values = {name: value for group in groups for name, value in vars(group).items()}
    names = sorted((typed | settings.keys()) - SECRETS)
    data, model, method, training = groups
    given = {name: _plain(values[name]) for name in names}
    if given.get("report_to") == []:  # what Transformers makes of it
        given["report_to"] = "none"
    return Recipe(data, model, method, training, given, frozenset(typed))


def read_files(paths: Iterable[str | Path], method: str | None, known: Iterable[str]) -> dict[str, Any]:
    """The settings of recipe files for one method. Later files override earlier ones.

    Args:
        paths: YAML files.
        method: The method, if it was given elsewhere. None takes it from the files.
        known: Names that a file may have, beside `base` and `by_method`.
    """
    settings: dict[str, Any] = {}
    special: dict[str, dict[str, Any]] = {}
    for path in paths:
        for file, content in _with_bases(Path(path), ()):
            by_method = content.pop(BY_METHOD, None) or {}
            if not isinstance(by_method, dict):
                raise ConfigError(f"{file} has {BY_METHOD}={shown(by_method)}: write a mapping, `lora: {{rank: 4}}`.")
            for name, values in by_method.items():
                _check_names(values, known, f"{file}, {BY_METHOD} of {name}")
                special[name] = {**special.get(name, {}), **values}
            _check_names(content, known, str(file))
            settings |= content
    chosen = method or settings.get("method", MethodArguments.method)
    if not isinstance(chosen, str):
        raise ConfigError(f"method={shown(chosen)} is not a name: choose one method.")
    return settings | special.get(chosen, {})


def _with_bases(path: Path, above: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    if not os.path.isfile(path):
        raise ConfigError(f"the recipe {path} is not a file{nearest(path.name, _siblings(path))}.")
    if path.resolve() in above:
        raise ConfigError(f"the recipe {path} is its own base: take {BASE!r} out of one of the files.")
    content = read_yaml(path, f"the recipe {path}")
    base = content.pop(BASE, None)
    if not isinstance(base, str | None):
        raise ConfigError(
            f"the recipe {path} has {BASE}={shown(base)}, which is not a file: give the path of a recipe."
        )
    before = [] if base is None else _with_bases(path.parent / base, (*above, path.resolve()))
    return [*before, (path, content)]


def _siblings(path: Path) -> list[str]:
    return [other.name for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []


def _check_names(values: Any, known: Iterable[str], place: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{place} is not a mapping: write one `name: value` per line.")
    for name in values:
        if name not in known:
            raise ConfigError(f"{place} has {name!r}, which is not a setting{_instead(str(name), known)}.")


def _instead(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of the message about an unknown name: where it belongs, or the nearest name that is known."""
    if name in ARGUMENTS_OF:
        return f": here, it is {prefix}{ARGUMENTS_OF[name]}"
    options = f'{{"{name}": ...}}'
    written = f"{prefix}method_options '{options}'" if prefix else f"method_options: {options}"
    if name in {field.name for field in fields(LoraConfig)} - {"task_type", "peft_type"}:
        return (
            f": it is a field of PEFT's LoraConfig, so with the method lora write {written}, and to choose, call "
            "weightlora.select(model, loader, lora=LoraConfig(...)) in Python"
        )
    if name in {field.name for field in fields(WeightLoraConfig)}:
        return f": it is one of the method_options, so write {written}"
    return nearest(name, known, prefix)


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line, so that both are checked and converted in the same way."""
    arguments = []
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, list):
            for item in value:
                if item is None or isinstance(item, bool):
                    written = "null, ~ and an empty item" if item is None else "yes, no, on and off, too"
                    raise ConfigError(f"{name} has {item}, which YAML reads from {written}: put names in quotes.")
                if str(item).startswith("--"):
                    raise ConfigError(f"{name} has {str(item)!r}, which would be another argument: take it out.")
            arguments += [f"--{name}", *map(str, value)]
        else:
            arguments.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return arguments


def _plain(value: Any) -> Any:
    """A value for JSON. An enum becomes its value, and an object of settings a mapping."""
    value = value.to_dict() if isinstance(value, AcceleratorConfig) else getattr(value, "value", value)
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def parse_json(name: str, text: str | None, example: str = 'write {"key": "value"}') -> dict[str, Any]:
    """The mapping in an argument. The example is for the error.

    Raises:
        ConfigError: It is not a JSON object.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}={shown(text)} is not JSON ({first_line(error)}): {example}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name}={shown(text)} is not a JSON object: {example}.")
    return value
