"""Our own arguments of a run. This file imports nothing that takes seconds: `--help` is made of it."""

import argparse
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from ..errors import ConfigError


class SentenceParser(argparse.ArgumentParser):
    """Raises a `ConfigError` where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _argument(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    """The task and its data."""

    _argument_group_name: ClassVar[str] = "task and data"

    task: str | None = _argument(
        "a family (text-classification, regression, token-classification, question-answering, seq2seq, causal-lm), or "
        "a task of the paper (cola, squad, xsum...)"
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

    method: str = _argument(
        "weightlora, weightlora-plus, weightlora-paper, weightlora-paper-plus, random, lora, lora-equal, "
        "peft-default, listed, dora, rslora, top, last-layers or full",
        "weightlora",
    )
    target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"],
        metadata={"help": "PEFT's: all-linear, names, or one regular expression"},
    )
    listed: list[str] | None = field(
        default=None,
        metadata={"help": "the modules of --method listed: names, ends of names (q_proj), or one regular expression"},
    )
    modules_from: str | None = _argument("train plain LoRA on the modules that a run chose: its directory")
    rank: int = _argument("LoRA rank, r", 8)
    alpha: int = _argument("lora_alpha", 32)
    dropout: float = _argument("lora_dropout", 0.0)
    keep: str = _argument(
        "how many adapters to keep: a number, or a fraction of all (default if no budget is set: as many as fit into "
        "a quarter of the parameters; for lora-equal, peft-default, listed, top and last-layers %(default)s)",
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
    max_cache_bytes: str | None = _argument(
        "cache_prefix: maximum on disk, such as 6GiB (default: 90 %% of what is free)"
    )
    method_options: str | None = _argument("JSON: more fields of WeightLoraConfig, or of PEFT's config")
    dry_run: bool = _argument("print the plan and stop", False)


OWN: Any = (DataArguments, ModelArguments, MethodArguments)
