"""The arguments of a run, after Transformers' conventions: dataclasses beside `Seq2SeqTrainingArguments`, and YAML."""

import argparse
import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from ..errors import ConfigError

__all__ = [
    "DataArguments",
    "MethodArguments",
    "ModelArguments",
    "Recipe",
    "as_arguments",
    "make_parser",
    "parse",
    "read_files",
]

BASE, BY_METHOD, CONFIG = "base", "by_method", "--config"


def _argument(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    """What is learned, and from what."""

    _argument_group_name: ClassVar[str] = "task and data"

    task: str | None = _argument("a task of the registry (cola, squad, xsum...) or a family (text-classification...)")
    dataset: str | None = _argument("hub id, or a directory with <split>.jsonl, .csv, .tsv or .parquet files")
    dataset_config: str | None = _argument("the hub data set's configuration, or a folder of the directory")
    train_file: str | None = _argument("a file instead of a data set")
    validation_file: str | None = _argument("a file instead of a data set")
    columns: str | None = _argument('JSON: which column is what, as {"text": "sentence", "label": "gold"}')
    class_names: list[str] | None = field(default=None, metadata={"help": "names of the classes, class 0 first"})
    train_examples: int | None = _argument("only so many rows, from the first on")
    eval_examples: int | None = _argument("only so many rows of each evaluation split, from the first on")
    max_length: int = _argument("tokens of an input; longer ones are cut", 128)
    pad_to_max_length: bool = _argument("pad every input to max_length, not to the longest one of its batch", False)
    packing: bool = _argument("causal-lm with a text column: train on blocks of max_length tokens across texts", False)
    max_target_length: int = _argument("seq2seq: tokens of a target", 128)
    stride: int = _argument("question answering: tokens that two windows of a long context share", 64)
    max_answer_length: int = _argument("question answering: tokens of the longest answer", 30)
    n_best: int = _argument("question answering: starts and ends that are combined", 20)
    verbalised: bool = _argument("classification by a causal LM that answers with a word", False)
    prompt: str | None = _argument('the verbalised form: "Review: {text}\\nSentiment:"')
    label_words: list[str] | None = field(default=None, metadata={"help": "a word for each class, ' bad' ' good'"})


@dataclass
class ModelArguments:
    """The base model, and how it is loaded."""

    _argument_group_name: ClassVar[str] = "model"

    model: str | None = _argument("hub id or directory")
    tokenizer: str | None = _argument("hub id or directory, if it is another than the model's")
    gguf_file: str | None = _argument("a GGUF file of the model; it is dequantized")
    revision: str = _argument("branch, tag or commit on the hub", "main")
    dtype: str | None = _argument("of the weights: float32, bfloat16 or float16 (bfloat16 with --bf16, else float32)")
    attn_implementation: str = _argument("auto: flash attention where it can run, else the model's default", "auto")
    load_in_4bit: bool = _argument("quantize the base model to NF4 (bitsandbytes)", False)
    pad_token: str | None = _argument("a token of the vocabulary to pad with, for tokenizers that have none")
    cache_dir: str | None = _argument("where downloads and prepared data are kept")


@dataclass
class MethodArguments:
    """The method, its size and its budget."""

    _argument_group_name: ClassVar[str] = "method"

    method: str = _argument("any of the benchmark's methods: weightlora, lora, dora, full...", "weightlora")
    target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"],
        metadata={"help": "PEFT's: all-linear, names, or one regular expression"},
    )
    rank: int = _argument("r", 8)
    alpha: int = _argument("lora_alpha", 32)
    dropout: float = _argument("lora_dropout", 0.0)
    keep: str = _argument("K: a number of adapters, or a fraction of them", "0.25")
    select_steps: int | None = _argument("T, optimizer steps before the choice (a fifth of the training)")
    method_options: str | None = _argument("JSON: more fields of WeightLoraConfig, or of PEFT's config")
    dry_run: bool = _argument("print the plan, and stop", False)


GROUPS: Any = (DataArguments, ModelArguments, MethodArguments, Seq2SeqTrainingArguments)


@dataclass(frozen=True)
class Recipe:
    """A run's arguments, and everything that was given, as plain values."""

    data: DataArguments
    model: ModelArguments
    method: MethodArguments
    training: Seq2SeqTrainingArguments
    given: dict[str, Any]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def make_parser(**settings: Any) -> HfArgumentParser:
    """The parser of everything but `--config`; no abbreviations, so that a misspelt name is never another one."""
    return _Parser(GROUPS, allow_abbrev=False, **settings)


def parse(arguments: Sequence[str]) -> Recipe:
    """Read `--config` files in their order, then the other arguments, which win.

    In a file, `base: other.yaml` reads another one before it (the path is relative to the file), and `by_method` has
    settings for some methods, which win over the file's plain ones.

    Raises:
        ConfigError: A file is missing or no mapping, a name is unknown (with the nearest known one), or a value is of
            another type.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
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
    except (ValueError, ImportError) as error:  # rules between TrainingArguments
        raise ConfigError(f"the arguments do not fit together: {error}") from error
    if unknown:
        name = unknown[0].split("=")[0]
        if not name.startswith("--"):
            raise ConfigError(f"{name!r} stands alone: every value belongs to a --name in front of it.")
        raise ConfigError(f"{name} is no argument{nearest(name.lstrip('-').replace('-', '_'), known, '--')}.")
    given = {action.dest for action in parser._actions if set(action.option_strings) & {a.split("=")[0] for a in rest}}
    values = {name: value for group in groups for name, value in vars(group).items()}
    names = sorted(given | settings.keys())
    data, model, method, training = groups
    return Recipe(data, model, method, training, {name: _plain(values[name]) for name in names})


def read_files(paths: Iterable[str | Path], method: str | None, known: Iterable[str]) -> dict[str, Any]:
    """The settings of recipe files, later ones over earlier ones, for one method.

    Args:
        paths: YAML files.
        method: The method, if it was given elsewhere; else the files say which.
        known: Names that a file may have, beside `base` and `by_method`.
    """
    settings: dict[str, Any] = {}
    special: dict[str, dict[str, Any]] = {}
    for path in paths:
        for file, content in _with_bases(Path(path), ()):
            by_method = content.pop(BY_METHOD, None) or {}
            for name, values in by_method.items():
                _check_names(values, known, f"{file}, {BY_METHOD} of {name}")
                special[name] = {**special.get(name, {}), **values}
            _check_names(content, known, str(file))
            settings |= content
    chosen = method or settings.get("method", MethodArguments.method)
    return settings | special.get(chosen, {})


def _with_bases(path: Path, above: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    if not path.is_file():
        raise ConfigError(f"the recipe {path} is no file{nearest(path.name, _siblings(path))}.")
    if path.resolve() in above:
        raise ConfigError(f"the recipe {path} is its own base: take {BASE!r} out of one of the files.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"the recipe {path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the recipe {path} is no mapping: write `name: value`, a line each.")
    base = content.pop(BASE, None)
    before = [] if base is None else _with_bases(path.parent / base, (*above, path.resolve()))
    return [*before, (path, content)]


def _siblings(path: Path) -> list[str]:
    return [other.name for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []


def _check_names(values: Any, known: Iterable[str], place: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{place} is no mapping: write `name: value`, a line each.")
    for name in values:
        if name not in known:
            raise ConfigError(f"{place} has {name!r}, which is no setting{nearest(str(name), known)}.")


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {prefix}{close[0]}?"[:-1] if close else ""


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line, so that both are checked and converted alike."""
    arguments = []
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        else:
            arguments.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return arguments


def _plain(value: Any) -> Any:
    """A value that JSON can hold; enums by their value."""
    value = getattr(value, "value", value)
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def parse_json(name: str, text: str | None, example: str = 'write {"key": "value"}') -> dict[str, Any]:
    """The mapping in an argument. The example is for the error.

    Raises:
        ConfigError: It is no JSON object.
    """
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is not JSON ({error}): {example}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name}={text!r} is not a JSON object: {example}.")
    return value
