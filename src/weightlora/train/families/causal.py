"""Causal language models: plain text, blocks of packed texts, prompt and completion, and chats."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, DataCollatorForSeq2Seq, EvalPrediction

from ...errors import ConfigError, DataError, ModelError
from ..result import HELD_OUT_LOSS
from ..rows import NUMBER, head_of, name_row, tail_of
from ..verbatim import as_written
from ..work import IGNORED, Source, Work, padder, padding, room_for, tokenized
from .chats import Tokens, chat


def causal_lm(source: Source) -> Work:
    """Next-token prediction: of a `text`, of a `completion` after its `prompt`, or of the last message of a chat.

    The chat template writes the `tools` of a chat, if it has any.

    With `packing`, texts are joined and cut into blocks of `max_length` tokens.

    Raises:
        ConfigError: The tokenizer has no chat template, `max_length` is too long, or there is no text to pack.
        DataError: A row has nothing to learn.
        ModelError: The model is an encoder.
    """
    check_causal(source.config)
    length = room_for(source)
    columns = [name for name in source.splits["train"].column_names if name != NUMBER]
    if source.arguments.packing:
        if columns != ["text"]:
            raise ConfigError(f"packing=True joins texts, and the data has {', '.join(columns)}: drop --packing.")
        return packed(source)
    form = chat if "messages" in columns else _completion if "prompt" in columns else _text
    if form is chat and source.tokenizer.chat_template is None:
        raise ConfigError(
            "the tokenizer has no chat template, and messages need one: give an instruction-tuned model."
        )

    empty = "its text or answer is empty, or is a single token"
    if form is chat:
        empty = "its last message is empty, or not of the role 'assistant' (in ShareGPT, 'gpt')"

    def tokenize(split: str, row: dict[str, Any], index: int) -> dict[str, Any]:
        rows = source.splits[split]
        try:
            prompt, answer = form(source, as_written(dict(row), rows.features), length)
        except DataError as error:
            raise DataError(f"{name_row(rows, split, index)}: {error}") from error
        if not answer or len(prompt) + len(answer) < 2:
            raise DataError(
                f"{name_row(rows, split, index)} has nothing to learn: {empty}; fix the row, or leave it out."
            )
        if len(answer) >= length:  # it loses its end, and leaves up to half of the room to the prompt
            answer = answer[: length - min(len(prompt), length // 2)]
        if (over := len(prompt) + len(answer) - length) > 0:  # a long prompt loses its beginning after the first token
            first = int(prompt[0] == source.tokenizer.bos_token_id)
            prompt = [*prompt[:first], *prompt[first + over :]]
        given = max(1, len(prompt))  # nothing but padding is before the first token to predict it from
        return {"input_ids": [*prompt, *answer], "labels": [IGNORED] * given + [*prompt, *answer][given:]}

    train, evaluation = tokenized(source, tokenize, batched=False)
    return Work(
        auto_class="AutoModelForCausalLM",
        task_type="CAUSAL_LM",
        train=train,
        evaluation=evaluation,
        max_tokens=length,
        collate=collator(source),
        metrics=dict.fromkeys(evaluation, _perplexity),
        reported=source.task.metrics,
        units={"token_accuracy": "fraction"},
        preprocess=_token_scores,
    )


def check_causal(config: Any) -> None:
    """Raise a `ModelError` for an encoder.

    `AutoModelForCausalLM` loads encoders, too, and in these a token sees the tokens that it is to predict. They are
    the models that also have a masked LM, unless their config makes them decoders or has a decoder (BART).
    """
    causal = any(getattr(config, name, False) for name in ("is_decoder", "causal", "is_encoder_decoder"))
    if not causal and type(config) in AutoModelForMaskedLM._model_mapping:
        raise ModelError(
            f"{config.model_type} models see the tokens that a causal LM predicts: give a decoder, or another --task."
        )


def packed(source: Source, blocks: Mapping[str, int] | None = None) -> Work:
    """Blocks of `max_length` tokens, cut from texts that follow each other, with the end-of-text token between them.

    Args:
        source: Its rows have a `text`.
        blocks: Largest number of blocks of a split. None takes all.

    Raises:
        ConfigError: `max_length` is too long for the model.
        DataError: A split has less than one block.
    """
    length, tokenizer = room_for(source), source.tokenizer

    def encode(split: str) -> Dataset:
        wanted = None if blocks is None else blocks[split]
        first, end = first_token(tokenizer), _end(tokenizer)  # most tokenizers add no end, but some do
        stream: list[int] = []
        for text in filter(None, source.splits[split]["text"]):  # of empty rows, only the tokens between would be left
            stream += [*first, *tokenizer(text, add_special_tokens=False).input_ids, *end]
            if wanted is not None and len(stream) >= wanted * length:
                break
        count = len(stream) // length if wanted is None else min(wanted, len(stream) // length)
        if count == 0:
            raise DataError(f"{split} has {len(stream)} tokens, less than a block of max_length={length}: lower it.")
        return Dataset.from_dict({"input_ids": [stream[i * length : (i + 1) * length] for i in range(count)]})

    evaluation = {split: encode(split) for split in source.splits}
    return Work(
        auto_class="AutoModelForCausalLM",
        task_type="CAUSAL_LM",
        train=evaluation.pop("train"),
        evaluation=evaluation,
        collate=_collate_blocks,
        metrics=dict.fromkeys(evaluation, _perplexity_of_blocks),
        reported=("perplexity",),
        preprocess=_block_losses,
    )


def _collate_blocks(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _block_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each block, shape `(batch, 1)`."""
    losses = functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none")
    return losses.mean(dim=1, keepdim=True)


def _perplexity_of_blocks(prediction: EvalPrediction) -> dict[str, float]:
    loss = float(np.mean(np.asarray(prediction.predictions), dtype=np.float64))
    return {HELD_OUT_LOSS: loss, "perplexity": float(np.exp(loss))}


def first_token(tokenizer: Any) -> list[int]:
    """The token that the tokenizer adds before a text, as a list; empty if it adds none."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a").input_ids[:1] == [bos] else []


def _end(tokenizer: Any) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _text(source: Source, row: dict[str, Any], length: int) -> Tokens:
    ids = source.tokenizer(head_of(source.tokenizer, row["text"], length), add_special_tokens=False).input_ids
    return [], [*first_token(source.tokenizer), *ids, *_end(source.tokenizer)] if ids else []


def _completion(source: Source, row: dict[str, Any], length: int) -> Tokens:
    prompt, answer = (
        source.tokenizer(part_of(source.tokenizer, row[name], length), add_special_tokens=False).input_ids
        for name, part_of in (("prompt", tail_of), ("completion", head_of))
    )
    return [*first_token(source.tokenizer), *prompt], [*answer, *_end(source.tokenizer)] if answer else []


Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


def collator(source: Source, logits: int = 0, positions: bool = True) -> Collate:
    """Make batches that are padded on the left, so that all rows end at the same position.

    Args:
        source: Its tokenizer, model config and padding.
        logits: If greater than 0, ask the model for its last logits only. With a large vocabulary they are costly.
        positions: Whether batches have `position_ids` that count from the first token after the padding. Without them
            the padding counts, too.
    """
    model: Any = AutoModelForCausalLM._model_mapping.get(type(source.config), None)
    accepted = inspect.signature(model.forward).parameters if model is not None else {}
    pad = DataCollatorForSeq2Seq(
        padder(source, "left"), **(padding(source) if source.arguments.pad_to_max_length else {})
    )

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(pad(rows))
        if positions and "position_ids" in accepted:
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        if logits and "logits_to_keep" in accepted:
            batch |= {"labels": batch["labels"][:, -logits:], "logits_to_keep": logits}
        return batch

    return collate


def _token_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Per row: the sum of the losses, the number of tokens that count, and how many of them were predicted."""
    logits, labels = logits[:, :-1].float(), labels[:, 1:]
    losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    counted = labels != IGNORED
    right = (logits.argmax(-1) == labels) & counted
    return torch.stack([losses.sum(1), counted.sum(1).float(), right.sum(1).float()], dim=1)


def _perplexity(prediction: EvalPrediction) -> dict[str, float]:
    loss, tokens, right = np.asarray(prediction.predictions, dtype=np.float64).sum(0)
    loss /= tokens
    return {HELD_OUT_LOSS: float(loss), "perplexity": float(np.exp(loss)), "token_accuracy": float(right / tokens)}
