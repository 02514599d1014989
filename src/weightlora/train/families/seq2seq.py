"""Text to text by an encoder-decoder model: summarization (XSum, CNN/DailyMail) and similar tasks."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from torch import Tensor
from torch.nn import functional
from transformers import DataCollatorForSeq2Seq, EvalPrediction

from ...errors import DataError
from ..result import HELD_OUT_LOSS
from ..rows import head_of, name_row
from ..work import IGNORED, Source, Work, padder, padding, room_for, tokenized

KINDS = ("rouge1", "rouge2", "rougeL")


def seq2seq(source: Source) -> Work:
    """Rows have a `source` and a `target` text. The metrics compare generated texts with the targets.

    Raises:
        WeightLoraError: A length is longer than the model, or a text is empty.
    """
    lengths, tokenizer = (room_for(source), room_for(source, "max_target_length")), source.tokenizer
    for split, rows in source.splits.items():
        for column in ("source", "target"):
            for row, text in enumerate(rows[column]):
                if not text.strip():
                    place = name_row(rows, split, row)
                    raise DataError(f"{place} has no {column} text ({text!r}): leave it out.")

    _warn_of_letters([text for split, rows in source.splits.items() if split != "train" for text in rows["target"]])

    def tokenize(split: str, batch: dict[str, Any], indices: list[int]) -> dict[str, Any]:
        texts, targets = (
            [head_of(tokenizer, text, length) for text in batch[name]]
            for name, length in zip(("source", "target"), lengths, strict=True)
        )
        encoded = tokenizer(texts, truncation=True, max_length=lengths[0])
        target = tokenizer(text_target=targets, truncation=True, max_length=lengths[1])
        return {**encoded, "labels": target["input_ids"]}

    def metrics(split: str) -> Any:
        golds = list(source.splits[split]["target"])  # the whole texts, also where training cuts them

        def score(prediction: EvalPrediction) -> dict[str, float]:
            ids = np.asarray(prediction.predictions)
            ids = np.where(ids == IGNORED, tokenizer.pad_token_id, ids)
            texts = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
            return rouge(texts, golds)

        return score

    train, evaluation = tokenized(source, tokenize)
    return Work(
        auto_class="AutoModelForSeq2SeqLM",
        task_type="SEQ_2_SEQ_LM",
        train=train,
        evaluation=evaluation,
        max_tokens=lengths[0],
        max_target=lengths[1],
        collate=DataCollatorForSeq2Seq(padder(source), **padding(source, lengths[1])),
        metrics={split: metrics(split) for split in evaluation},
        reported=source.task.metrics,
        units=dict.fromkeys(source.task.metrics, "percent"),
        forced=(_token_losses, _mean_loss),
    )


def _token_losses(logits: Any, labels: Tensor) -> Tensor:
    """Per row: the sum of the losses, and the number of tokens that count."""
    logits = (logits[0] if isinstance(logits, tuple) else logits).float()  # BART adds its encoder's output
    losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return torch.stack([losses.sum(1), (labels != IGNORED).sum(1).float()], dim=1)


def _mean_loss(prediction: EvalPrediction) -> dict[str, float]:
    loss, tokens = np.asarray(prediction.predictions, dtype=np.float64).sum(0)
    return {HELD_OUT_LOSS: float(loss / tokens)}


def _warn_of_letters(targets: Sequence[str]) -> None:
    """Warn if ROUGE reads few of the letters: it takes all that is not a Latin letter or a digit for white space."""
    letters = [letter for text in targets for letter in text if letter.isalpha()]
    if sum(map(str.isascii, letters)) < len(letters) / 2:
        warnings.warn(
            "most letters of the targets to evaluate on are not a to z, and ROUGE reads no others, so its figures say "
            "little: compare held_out_loss.",
            stacklevel=2,
        )


def rouge(texts: list[str], golds: list[str]) -> dict[str, float]:
    """Mean F1 of ROUGE-1, -2 and -L in percent, with Porter's stemmer."""
    scorer = RougeScorer(KINDS, use_stemmer=True)
    scores = [scorer.score(gold, text) for text, gold in zip(texts, golds, strict=True)]
    return {kind: 100 * float(np.mean([score[kind].fmeasure for score in scores])) for kind in KINDS}
