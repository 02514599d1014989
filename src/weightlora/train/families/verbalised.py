"""Classification by a causal language model that answers with a word."""

from collections.abc import Callable
from string import Formatter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import EvalPrediction

from ...errors import ConfigError
from ..labels import class_ids, guess_loss
from ..result import HELD_OUT_LOSS
from ..rows import head_of
from ..work import IGNORED, Source, Work, room_for, tokenized
from .causal import check_causal, collator, first_token
from .classification import score_classes

PromptIds = Callable[[dict[str, Any]], list[int]]


def verbalised(source: Source, prompt_ids: PromptIds | None = None, positions: bool = True) -> Work:
    """Classes as words that continue a prompt. The loss is the loss of that word among all words.

    Answers are distinguished by their first token.

    Args:
        source: Its task or arguments have the prompt and a word for each class.
        prompt_ids: Makes the tokens of a row's prompt, instead of the template.
        positions: Whether batches have `position_ids` (see `collator`).

    Raises:
        ConfigError: There is no prompt, or no word for a class, or two words begin with the same token.
        DataError: A label is out of range.
        ModelError: The model is an encoder.
    """
    check_causal(source.config)
    given, task = source.arguments, source.task
    if not ((prompt_ids or given.prompt or task.prompt) and (given.label_words or task.words)):
        raise ConfigError(
            "--verbalised asks a question and learns a word for each class: give --prompt and --label_words, as in "
            "--prompt 'Review: {text} Sentiment:' --label_words ' bad' ' good'."
        )
    names, ids = class_ids(source, head=False)
    prompt_ids = prompt_ids or _template(source)
    answers = _answers(source, names)

    def tokenize(split: str, row: dict[str, Any], index: int) -> dict[str, Any]:
        tokens, answer = prompt_ids(row), answers[ids[split][index]]
        return {"input_ids": [*tokens, answer], "labels": [*[IGNORED] * len(tokens), answer]}

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        predictions = np.asarray(prediction.predictions)
        labels = [answers.index(token) for token in np.asarray(prediction.label_ids)[:, -1]]
        chosen = np.argmax(predictions[:, 1:], axis=-1)
        loss = float(np.mean(predictions[:, 0], dtype=np.float64))
        return {HELD_OUT_LOSS: loss, **score_classes(source.task.metrics, labels, chosen)}

    def preprocess(logits: Tensor, labels: Tensor) -> Tensor:
        """Per row: the loss of its word, and the logits of all answers. The answer is the last token of a row."""
        logits = logits[:, -2].float()
        losses = functional.cross_entropy(logits, labels[:, -1], reduction="none")
        return torch.cat([losses[:, None], logits[:, answers]], dim=1)

    train, evaluation = tokenized(source, tokenize, batched=False)
    return Work(
        auto_class="AutoModelForCausalLM",
        task_type="CAUSAL_LM",
        train=train,
        evaluation=evaluation,
        max_tokens=source.arguments.max_length,
        collate=collator(source, logits=2, positions=positions),
        metrics=dict.fromkeys(evaluation, metrics),
        reported=source.task.metrics,
        units=dict.fromkeys(source.task.metrics, "fraction"),
        guess_losses={split: guess_loss(ids[split]) for split in evaluation},
        preprocess=preprocess,
    )


def _answers(source: Source, names: list[str]) -> list[int]:
    """The first token of the word of each class."""
    tokenizer, words = source.tokenizer, source.arguments.label_words or list(source.task.words)
    if len(words) != len(names):
        raise ConfigError(
            f"label_words has {len(words)} words for {len(names)} classes ({', '.join(names)}): give one each."
        )
    tokens = [tokenizer(word, add_special_tokens=False).input_ids[:1] for word in words]
    first = [token[0] for token in tokens if token]
    if len(set(first)) < len(words) or tokenizer.unk_token_id in first:
        raise ConfigError(f"label_words={words} must differ in their first token: choose other words.")
    return first


def _template(source: Source) -> PromptIds:
    """Fills the prompt with a row's texts, and shortens them until the prompt fits."""
    tokenizer = source.tokenizer
    prompt = (source.arguments.prompt or source.task.prompt or "").replace("\\n", "\n")  # as a shell hands it over
    columns = source.splits["train"].column_names
    fields = _fields(prompt)
    if not fields or any(name not in columns for name in fields):
        raise ConfigError(
            f"prompt={prompt!r} must contain the text of the row: write {{text}}"
            + (" and {pair}." if "pair" in columns else ".")
        )
    head = first_token(tokenizer)
    room = room_for(source) - 1 - len(head)
    return lambda row: [
        *head,
        *_cut(tokenizer, prompt, {name: head_of(tokenizer, row[name], room) for name in fields}, room),
    ]


def _fields(prompt: str) -> list[str]:
    """The names in braces; none if a brace is open, or if a name has a format, which can be of any width."""
    try:
        parts = [part for part in Formatter().parse(prompt) if part[1] is not None]
    except ValueError:
        return []
    return (
        [] if any(form or conversion for _, _, form, conversion in parts) else [str(name) for _, name, _, _ in parts]
    )


def _cut(tokenizer: Any, prompt: str, texts: dict[str, str], room: int) -> list[int]:
    """Tokens of the filled prompt, its longest text shortened at the end until it fits."""
    while len(ids := tokenizer(prompt.format(**texts), add_special_tokens=False).input_ids) > room:
        name = max(texts, key=lambda key: len(texts[key]))
        if not texts[name]:
            raise ConfigError(f"max_length leaves no room for a text in the prompt {prompt!r}: raise it.")
        tokens = tokenizer(texts[name], add_special_tokens=False).input_ids
        shorter = tokenizer.decode(tokens[: max(0, len(tokens) - len(ids) + room)])
        texts = texts | {name: shorter if len(shorter) < len(texts[name]) else texts[name][:-1]}
    found: list[int] = ids
    return found
