"""Causal language models: plain text, prompt and completion, chats by the model's template, and classes as words."""

import inspect
from collections.abc import Callable
from string import Formatter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, EvalPrediction

from ..work import Source, Work, class_ids, room_for
from .classification import score_classes

__all__ = ["causal_lm", "verbalised"]

IGNORED = -100
Tokens = tuple[list[int], list[int]]


def causal_lm(source: Source) -> Work:
    """Next tokens: of a `text`; of a `completion` after its `prompt`; of the last of the `messages` of a chat.

    Raises:
        ValueError: A row has nothing to learn, the tokenizer has no chat template, or `max_length` is too long.
    """
    length = room_for(source)
    columns = source.splits["train"].column_names
    form = _chat if "messages" in columns else _completion if "prompt" in columns else _text
    if form is _chat and source.tokenizer.chat_template is None:
        raise ValueError("the tokenizer has no chat template, and messages need one: give an instruction-tuned model.")

    def encode(split: str) -> Any:
        rows = source.splits[split]

        def tokenize(row: dict[str, Any], index: int) -> dict[str, Any]:
            prompt, answer = form(source, row)
            if not answer:
                raise ValueError(f"row {index} of {split} has nothing to learn: its text or answer is empty.")
            answer = answer[:length]
            prompt = prompt[max(0, len(prompt) + len(answer) - length) :]  # a long prompt loses its beginning
            return {"input_ids": [*prompt, *answer], "labels": [*[IGNORED] * len(prompt), *answer]}

        return rows.map(tokenize, with_indices=True, remove_columns=rows.column_names)

    evaluation = {split: encode(split) for split in source.evaluated}
    return Work(
        auto_class="AutoModelForCausalLM",
        task_type="CAUSAL_LM",
        train=encode("train"),
        evaluation=evaluation,
        collate=_collator(source),
        metrics=dict.fromkeys(evaluation, _perplexity),
        metric=source.task.metrics[0],
        reported=source.task.metrics,
        preprocess=_token_scores,
    )


def verbalised(source: Source) -> Work:
    """Classes as words that the model goes on with after a prompt; the loss is that word's, among all words.

    Answers are told apart by their first token.

    Raises:
        ValueError: There is no prompt or no word for a class, the words begin alike, or a label is out of range.
    """
    names, ids = class_ids(source)
    prompt = source.arguments.prompt or source.task.prompt
    words = source.arguments.label_words or list(source.task.words)
    fields = [name for _, name, _, _ in Formatter().parse(prompt or "") if name]
    columns = source.splits["train"].column_names
    if not fields or any(name not in columns for name in fields):
        raise ValueError(
            f"prompt={prompt!r} must hold the row's text: write {{text}}"
            + (" and {pair}." if "pair" in columns else ".")
        )
    if len(words) != len(names):
        raise ValueError(
            f"label_words has {len(words)} words for {len(names)} classes ({', '.join(names)}): give one each."
        )
    tokenizer = source.tokenizer
    answers = [tokenizer(word, add_special_tokens=False).input_ids[:1] for word in words]
    first = [answer[0] for answer in answers if answer]
    if len(set(first)) < len(words) or tokenizer.unk_token_id in first:
        raise ValueError(f"label_words={words} are not told apart by their first token: choose other words.")
    head = _begin(tokenizer)
    room = room_for(source) - 1 - len(head)

    def encode(split: str) -> Any:
        rows = source.splits[split]

        def tokenize(row: dict[str, Any], index: int) -> dict[str, Any]:
            text = _cut(tokenizer, prompt or "", {name: row[name] for name in fields}, room)
            answer = first[ids[split][index]]
            tokens = [*head, *text]
            return {"input_ids": [*tokens, answer], "labels": [*[IGNORED] * len(tokens), answer]}

        return rows.map(tokenize, with_indices=True, remove_columns=rows.column_names)

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        labels = [first.index(row[row != IGNORED][-1]) for row in np.asarray(prediction.label_ids)]
        return score_classes(source.task.metrics, labels, np.argmax(prediction.predictions, axis=-1))

    def preprocess(logits: Tensor, labels: Tensor) -> Tensor:
        return logits[:, -2, first]  # the answer is the last token: batches are padded on the left

    evaluation = {split: encode(split) for split in source.evaluated}
    return Work(
        auto_class="AutoModelForCausalLM",
        task_type="CAUSAL_LM",
        train=encode("train"),
        evaluation=evaluation,
        collate=_collator(source, logits=2),
        metrics=dict.fromkeys(evaluation, metrics),
        metric=source.task.metrics[0],
        reported=source.task.metrics,
        preprocess=preprocess,
    )


def _cut(tokenizer: Any, prompt: str, texts: dict[str, str], room: int) -> list[int]:
    """Tokens of the filled prompt, its longest text shortened at the end until it fits."""
    while len(ids := tokenizer(prompt.format(**texts), add_special_tokens=False).input_ids) > room:
        name = max(texts, key=lambda key: len(texts[key]))
        if not texts[name]:
            raise ValueError(f"max_length leaves no room for a text in the prompt {prompt!r}: raise it.")
        tokens = tokenizer(texts[name], add_special_tokens=False).input_ids
        shorter = tokenizer.decode(tokens[: max(0, len(tokens) - len(ids) + room)])
        texts = texts | {name: shorter if len(shorter) < len(texts[name]) else texts[name][:-1]}
    return ids


def _begin(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts in front of a text, if it does."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a").input_ids[:1] == [bos] else []


def _end(tokenizer: Any) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _text(source: Source, row: dict[str, Any]) -> Tokens:
    ids = source.tokenizer(row["text"], add_special_tokens=False).input_ids
    return [], [*_begin(source.tokenizer), *ids, *_end(source.tokenizer)] if ids else []


def _completion(source: Source, row: dict[str, Any]) -> Tokens:
    prompt, answer = (
        source.tokenizer(row[name], add_special_tokens=False).input_ids for name in ("prompt", "completion")
    )
    return [*_begin(source.tokenizer), *prompt], [*answer, *_end(source.tokenizer)] if answer else []


def _chat(source: Source, row: dict[str, Any]) -> Tokens:
    render: Any = source.tokenizer.apply_chat_template
    messages = row["messages"]
    if not messages or messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        return [], []
    prompt = render(messages[:-1], add_generation_prompt=True, return_dict=False)
    whole = render(messages, return_dict=False)
    if whole[: len(prompt)] != prompt:
        raise ValueError(
            "the chat template renders a conversation anew when an answer is added, so prompt and answer cannot be "
            "told apart: give prompt and completion instead of messages."
        )
    return prompt, whole[len(prompt) :]


def _collator(source: Source, logits: int = 0) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Pads on the left, so that answers end together; `logits` > 0 asks the model for its last logits alone."""
    model: Any = AutoModelForCausalLM._model_mapping.get(type(source.config), None)
    accepted = inspect.signature(model.forward).parameters if model is not None else {}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(
            source.tokenizer.pad(
                [{"input_ids": row["input_ids"]} for row in rows], padding_side="left", return_tensors="pt"
            )
        )
        width = batch["input_ids"].shape[1]
        labels = torch.tensor([[IGNORED] * (width - len(row["labels"])) + row["labels"] for row in rows])
        if "position_ids" in accepted:  # from 0 at the first token, wherever the padding ends
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        if logits and "logits_to_keep" in accepted:
            return {**batch, "labels": labels[:, -logits:], "logits_to_keep": logits}
        return {**batch, "labels": labels}

    return collate


def _token_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Per row: the sum of the losses, the number of tokens that count, and how many of them were the likeliest."""
    logits, labels = logits[:, :-1].float(), labels[:, 1:]
    losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    counted = labels != IGNORED
    right = (logits.argmax(-1) == labels) & counted
    return torch.stack([losses.sum(1), counted.sum(1).float(), right.sum(1).float()], dim=1)


def _perplexity(prediction: EvalPrediction) -> dict[str, float]:
    loss, tokens, right = np.asarray(prediction.predictions, dtype=np.float64).sum(0)
    return {"perplexity": float(np.exp(loss / tokens)), "token_accuracy": float(right / tokens)}
