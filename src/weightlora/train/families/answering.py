"""Extractive question answering: predict where the answer starts and ends. Long contexts are cut into windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import DataCollatorWithPadding, EvalPrediction

from ...errors import ConfigError, DataError
from ..result import HELD_OUT_LOSS
from ..rows import head_of, name_row
from ..work import Metrics, Source, Work, padder, padding, room_for, tokenized
from .classification import class_loss
from .squad import score_answers

ASIDE = ("example", "offsets", "cls")  # columns of features that the model does not get
Span = tuple[str, float]


def question_answering(source: Source) -> Work:
    """Rows have the columns of SQuAD. A question without answers has no answer in its context (v2.0).

    An answer that is an empty text is none.

    Raises:
        DataError: An answer is not at its position in the context.
        ConfigError: The windows are too short for the questions, or the tokenizer is not a fast one.
    """
    length, tokenizer = room_for(source), source.tokenizer
    if not tokenizer.is_fast:
        raise ConfigError(
            "question answering needs a fast tokenizer, for the positions of tokens in the text: choose another model."
        )
    _check_answers(source)
    _check_windows(source, length)
    train, windows = _windows(source, length)
    nullable = any(not any(answers["text"]) for rows in source.splits.values() for answers in rows["answers"])
    named = tuple(name for name in source.task.metrics if nullable or not name.startswith(("HasAns", "NoAns")))
    reported = (*named, "best_f1", "best_exact") if nullable else named
    return Work(
        auto_class="AutoModelForQuestionAnswering",
        task_type="QUESTION_ANS",
        train=train.remove_columns(list(ASIDE)),
        evaluation={split: rows.remove_columns(list(ASIDE)) for split, rows in windows.items()},
        collate=DataCollatorWithPadding(padder(source), **padding(source)),
        metrics={split: _metrics(source, split, rows, nullable) for split, rows in windows.items()},
        reported=reported,
        units=dict.fromkeys(reported, "percent"),
        label_names=("start_positions", "end_positions"),
    )


def _check_answers(source: Source) -> None:
    for split, rows in source.splits.items():
        for row, (name, context, answers) in enumerate(zip(rows["id"], rows["context"], rows["answers"], strict=True)):
            for text, start in zip(answers["text"], answers["answer_start"], strict=True):
                if context[start : start + len(text)] != text:
                    place = name_row(rows, split, row)
                    raise DataError(
                        f"the answer {text!r} of question {name!r} in {place} is not in its context at character "
                        f"{start}: it has {context[start : start + len(text)]!r} there."
                    )


def _check_windows(source: Source, length: int) -> None:
    stride = source.arguments.stride
    for split, rows in source.splits.items():
        asked = [head_of(source.tokenizer, question, length) for question in rows["question"]]
        questions = source.tokenizer(asked, add_special_tokens=False).input_ids
        longest = max(map(len, questions))
        if longest + stride + source.tokenizer.num_special_tokens_to_add(pair=True) >= length:
            raise ConfigError(
                f"max_length={length} is too short for the longest question of {split}, {longest} tokens, and "
                f"stride={stride}: raise max_length, or lower stride."
            )


def _windows(source: Source, length: int) -> tuple[Dataset, dict[str, Dataset]]:
    def tokenize(split: str, batch: dict[str, Any], indices: list[int]) -> dict[str, Any]:
        encoded = source.tokenizer(
            batch["question"],
            batch["context"],
            truncation="only_second",
            max_length=length,
            stride=source.arguments.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owners = encoded.pop("overflow_to_sample_mapping")
        offsets = [
            [span if part == 1 else (-1, -1) for span, part in zip(spans, encoded.sequence_ids(i), strict=True)]
            for i, spans in enumerate(encoded.pop("offset_mapping"))
        ]
        nulls = [_null_position(source.tokenizer.cls_token_id, ids) for ids in encoded["input_ids"]]
        positions = [
            _positions(batch["answers"][owner], spans, null)
            for owner, spans, null in zip(owners, offsets, nulls, strict=True)
        ]
        return {
            **encoded,
            "start_positions": [start for start, _ in positions],
            "end_positions": [end for _, end in positions],
            "example": [indices[owner] for owner in owners],
            "offsets": offsets,
            "cls": nulls,
        }

    return tokenized(source, tokenize)


def _null_position(cls: int | None, ids: list[int]) -> int:
    return ids.index(cls) if cls in ids else 0


def _positions(answers: dict[str, list[Any]], spans: Sequence[tuple[int, int]], null: int) -> tuple[int, int]:
    """First and last token of the first answer; twice the null position if it is not wholly in the window.

    White space around an answer, as some annotators mark it, is in no token.
    """
    given = [(s, text) for s, text in zip(answers["answer_start"], answers["text"], strict=True) if text.strip()]
    if not given:
        return null, null
    start, text = given[0]
    end = start + len(text.rstrip())
    start += len(text) - len(text.lstrip())
    inside = [i for i, (first, last) in enumerate(spans) if first >= 0 and last > start and first < end]
    if not inside or spans[inside[0]][0] > start or spans[inside[-1]][1] < end:
        return null, null
    return inside[0], inside[-1]


def _metrics(source: Source, split: str, features: Dataset, nullable: bool) -> Metrics:
    rows, arguments = source.splits[split], source.arguments
    contexts, golds = list(rows["context"]), [list(filter(None, answers["text"])) for answers in rows["answers"]]
    lengths = [len(ids) for ids in features["input_ids"]]

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits: Any = prediction.predictions
        starts, ends = logits[:2]
        loss = {HELD_OUT_LOSS: span_loss(logits[:2], prediction.label_ids, lengths)}
        spans, nulls = best_spans(starts, ends, features, contexts, arguments.n_best, arguments.max_answer_length)
        if not nullable:
            return {**loss, **score_answers([text for text, _ in spans], golds)}
        margins = [null - score for null, (_, score) in zip(nulls, spans, strict=True)]
        answers = ["" if margin > 0 else text for margin, (text, _) in zip(margins, spans, strict=True)]
        forced = score_answers([text for text, _ in spans], golds, margins)
        best = {name: value for name, value in forced.items() if name.startswith("best_")}
        return {**loss, **score_answers(answers, golds), **best}

    return metrics


def span_loss(logits: Any, positions: Any, lengths: Sequence[int]) -> float:
    """Mean negative log-likelihood of the first and of the last position, among the tokens of each window.

    Args:
        logits: For first and last positions, each of shape `(windows, tokens)`. Columns after a window are ignored.
        positions: The right ones, each of shape `(windows,)`.
        lengths: Tokens of each window.
    """
    losses = []
    for one, right in zip(logits, positions, strict=True):
        one = np.asarray(one, dtype=np.float64)
        beyond = np.arange(one.shape[1]) >= np.asarray(lengths)[:, None]
        losses.append(class_loss(right, np.where(beyond, -np.inf, one)))
    return float(np.mean(losses))


def best_spans(
    starts: Any, ends: Any, features: Dataset, contexts: Sequence[str], n_best: int, max_length: int
) -> tuple[list[Span], list[float]]:
    """The best answer of each example with its score, and the score of having no answer.

    Args:
        starts, ends: Logits of shape `(features, tokens)`.
        features: With the columns `example`, `offsets` (-1 outside the context) and `cls`.
        contexts: By example.
        n_best: Number of best start and of best end positions that are combined.
        max_length: Maximum tokens of an answer.

    Returns:
        The answer of each example as `(text, score)`, where the score is the sum of both logits; and for each example
        the lowest null score of its windows.
    """
    best: list[Span] = [("", -np.inf)] * len(contexts)
    nulls = [np.inf] * len(contexts)
    columns: list[Any] = [features[name] for name in ("example", "offsets", "cls")]
    for start, end, example, offsets, cls in zip(np.asarray(starts), np.asarray(ends), *columns, strict=True):
        nulls[example] = min(nulls[example], float(start[cls] + end[cls]))
        spans = np.asarray(offsets)
        inside = np.flatnonzero(spans[:, 0] >= 0)
        firsts, lasts = (inside[np.argsort(-logits[inside], kind="stable")[:n_best]] for logits in (start, end))
        scores = start[firsts][:, None] + end[lasts][None, :]
        length = lasts[None, :] - firsts[:, None] + 1
        scores = np.where((length >= 1) & (length <= max_length), scores, -np.inf)
        if scores.size and (score := float(scores.max())) > best[example][1]:
            i, j = np.unravel_index(int(scores.argmax()), scores.shape)
            text = contexts[example][spans[firsts[i], 0] : spans[lasts[j], 1]]
            best[example] = (text, score)
    return best, nulls
