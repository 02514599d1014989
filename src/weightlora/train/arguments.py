"""The arguments of a run: dataclasses beside `Seq2SeqTrainingArguments`, read from YAML files and the command line."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from transformers import HfArgumentParser, Seq2SeqTrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from ..errors import ConfigError
from ..wording import first_line, nearest, shortened, shown
from .reading import read_yaml

__all__ = [
    "DataArguments",
    "MethodArguments",
    "ModelArguments",
    "Recipe",
    "SentenceParser",
    "as_arguments",
    "make_parser",
    "parse",
    "read_files",
]

BASE, BY_METHOD, CONFIG = "base", "by_method", "--config"
SECRETS = frozenset({"hub_token", "push_to_hub_token"})
"""Arguments that are written nowhere."""


def _argument(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    """The task and its data."""

    _argument_group_name: ClassVar[str] = "task and data"

    task: str | None = _argument(
        "a task of the paper (cola, squad, xsum...) or a family (text-classification, causal-lm...)"
    )
    dataset: str | None = _argument("hub id, or a directory with <split>.jsonl, .json, .csv, .tsv or .parquet files")
    dataset_config: str | None = _argument("the hub data set's configuration, or a folder of the directory")
    train_file: str | None = _argument("file with the training rows, instead of --dataset")
    validation_file: str | None = _argument("file with the evaluation rows (default: a part of --train_file)")
    columns: str | None = _argument('JSON with the names of columns, such as {"text": "sentence", "label": "gold"}')
    class_names: list[str] | None = field(default=None, metadata={"help": "names of the classes, class 0 first"})
    train_examples: int | None = _argument("maximum rows of the training split; the first ones are used")
    eval_examples: int | None = _argument("maximum rows of each evaluation split; the first ones are used")
    max_length: int = _argument("maximum tokens of an input; longer inputs are cut", 128)
    pad_to_max_length: bool = _argument("pad every input to max_length, not to the longest input of its batch", False)
    packing: bool = _argument("causal-lm with a text column: train on blocks of max_length tokens across texts", False)
    max_target_length: int = _argument("seq2seq: maximum tokens of a target", 128)
    stride: int = _argument("question answering: tokens that two windows of a long context share", 64)
    max_answer_length: int = _argument("question answering: maximum tokens of an answer", 30)
    n_best: int = _argument("question answering: number of best starts and of best ends to combine", 20)
    verbalised: bool = _argument("classification by a causal LM that answers with a word", False)
    prompt: str | None = _argument('verbalised: the prompt, such as "Review: {text}\\nSentiment:"')
    label_words: list[str] | None = field(
        default=None,
        metadata={
            "help": "verbalised: a word for each class, such as ' bad' ' good', in the order of --class_names, or "
            "without --class_names in the order of the data set or the alphabet"
        },
    )


@dataclass
class ModelArguments:
    """The base model, and how it is loaded."""

    _argument_group_name: ClassVar[str] = "model"

    model: str | None = _argument("hub id or directory")
    tokenizer: str | None = _argument("hub id or directory (default: the same as the model)")
    gguf_file: str | None = _argument("a GGUF file of the model; it is dequantized")
    revision: str = _argument("branch, tag or commit on the hub", "main")
    dtype: str | None = _argument(
        "dtype of the base weights: float32, bfloat16 or float16 (default: bfloat16 with --bf16, else float32)"
    )
    attn_implementation: str = _argument("auto: flash attention where it can run, else the model's default", "auto")
    load_in_4bit: bool = _argument("quantize the base model to NF4 (bitsandbytes)", False)
    pad_token: str | None = _argument("token of the vocabulary to pad with, for a tokenizer that has no pad token")
    cache_dir: str | None = _argument("where downloads and prepared data are kept")


@dataclass
class MethodArguments:
    """The method, its size and its budget."""

    _argument_group_name: ClassVar[str] = "method"

    method: str = _argument("weightlora, lora, random, dora, full and others", "weightlora")
    target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"],
        metadata={"help": "PEFT's: all-linear, names, or one regular expression"},
    )
    modules_from: str | None = _argument("train plain LoRA on the modules that a run chose: its directory")
    rank: int = _argument("LoRA rank, r", 8)
    alpha: int = _argument("lora_alpha", 32)
    dropout: float = _argument("lora_dropout", 0.0)
    keep: str = _argument(
        "how many adapters to keep: a number, or a fraction of all (default if no budget is set: as many as fit into "
        "a quarter of the parameters; for lora-equal, top and last-layers %(default)s)",
        "0.25",
    )
    keep_parameters: str | None = _argument("maximum adapter parameters to keep: a number, or a fraction of all")
    keep_step_time: float | None = _argument(
        "maximum time of a step after the choice, as a fraction of a step of LoRA on all modules, such as 0.6"
    )
    keep_memory: str | None = _argument("maximum memory of a step after the choice, such as 6GiB")
    select_steps: str | None = _argument(
        "to choose while training: the optimizer steps before the choice, as a number or a fraction of the training"
    )
    cache_prefix: bool = _argument(
        "run the frozen blocks below the lowest kept adapter once for each example, and read their output from disk",
        False,
    )
    prefix_dropout: str = _argument(
        "cache_prefix: refuse a model with dropout, or switch it off below the lowest kept adapter (refuse, off)",
        "refuse",
    )
    max_cache_bytes: int | None = _argument("cache_prefix: maximum bytes on disk (default: 90 %% of what is free)")
    method_options: str | None = _argument("JSON: more fields of WeightLoraConfig, or of PEFT's config")
    dry_run: bool = _argument("print the plan and stop", False)


GROUPS: Any = (DataArguments, ModelArguments, MethodArguments, Seq2SeqTrainingArguments)


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


class SentenceParser(HfArgumentParser):
    """Raises a `ConfigError` where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def make_parser(groups: Any = GROUPS, **settings: Any) -> HfArgumentParser:
    """The parser of everything but `--config`; no abbreviations, so that a misspelt name is never another one."""
    return SentenceParser(groups, allow_abbrev=False, **settings)


def parse(arguments: Sequence[str]) -> Recipe:
    """Read `--config` files in their order, then the other arguments, which override the files.

    In a file, `base: other.yaml` reads another file first (the path is relative to this file). `by_method` has
    settings for single methods, which override the other settings of the file.

    Raises:
        ConfigError: A file is missing or is not a mapping, a name is unknown (the message has the nearest known one),
            or a value has the wrong type.
    """
    own = SentenceParser((), add_help=False, allow_abbrev=False)
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
        raise ConfigError(f"{short} is not an argument{nearest(name.lstrip('-').replace('-', '_'), known, '--')}.")
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
            raise ConfigError(f"{place} has {name!r}, which is not a setting{nearest(str(name), known)}.")


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line, so that both are checked and converted in the same way."""
    arguments = []
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, list):
            for item in value:
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
