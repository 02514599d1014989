"""Small data sets in the formats of the real ones, and tiny models with tokenizers trained on the spot."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
import torch
from pyarrow import parquet
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

GOOD, BAD = "a fine and moving film", "a dull and empty film"
ANSWERS = ("True", "False", "Neither", "Yes", "No", "positive", "negative")
LABELLED = [{"text": "fine", "label": 0}, {"text": "dull", "label": 1}]
FAMILY_MODELS = {"xsum": "bart", "causal-lm": "llama", "sst2-verbalised": "llama"}
QUICK = ["--max_steps", "4", "--select_steps", "2", "--max_length", "64", "--keep", "3", "--use_cpu"]
QUICK += ["--per_device_train_batch_size", "4", "--save_strategy", "no", "--disable_tqdm", "true"]
CHAT = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
GLUE: dict[str, tuple[tuple[str, ...], int]] = {
    "cola": (("sentence",), 2),
    "mnli": (("premise", "hypothesis"), 3),
    "mrpc": (("sentence1", "sentence2"), 2),
    "qnli": (("question", "sentence"), 2),
    "qqp": (("question1", "question2"), 2),
    "rte": (("sentence1", "sentence2"), 2),
    "sst2": (("sentence",), 2),
    "stsb": (("sentence1", "sentence2"), 1),
}


@pytest.fixture(autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared data goes to a folder of the tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


def arguments(world: Path, task: str, model: str, output: Path, *more: object) -> list[str]:
    """Arguments of `weightlora train` for 4 steps of a task with a model of `world`; `more` has the data."""
    pad = ["--pad_token", "</s>"] if model == "llama" else []
    given = ["--task", task, "--model", world / model, "--output_dir", output, *pad, *QUICK, *more]
    return list(map(str, given))


def family_arguments(world: Path, task: str, output: Path) -> list[str]:
    """Arguments for 2 steps of LoRA on one task of each family, with its data; `sst2-verbalised` is one of them."""
    name, model = task.split("-verbalised")[0], FAMILY_MODELS.get(task, "deberta")
    data: list[object] = ["--dataset", world / ("glue" if name in {"cola", "stsb", "sst2"} else name)]
    if name in {"token-classification", "causal-lm"}:
        rows = [{"tokens": ["Ann", "made", "films"], "tags": ["PER", "O", "O"], "text": t} for t in (GOOD, BAD)] * 4
        write_parquet(output / "rows.parquet", rows)
        data = files_of(output / "rows.parquet")
    data += {"squad": ["--stride", 16], "xsum": ["--max_target_length", 8]}.get(name, [])
    data += ["--verbalised"] if task.endswith("verbalised") else []
    short = ["--max_steps", 2, "--method", "lora", "--logging_strategy", "no"]
    return arguments(world, name, model, output / "run", *data, *short)


def files_of(rows: Path) -> list[object]:
    """The data arguments that train and evaluate on one file."""
    return ["--train_file", rows, "--validation_file", rows]


def classified(world: Path, train: Path, validation: Path | None = None) -> list[object]:
    """Arguments of a classification of texts in files."""
    files = ["--train_file", train, "--validation_file", validation or train]
    return ["--task", "text-classification", "--model", world / "deberta", *files]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def glue_rows(task: str, count: int) -> list[dict[str, Any]]:
    """The hub's columns: texts, `label`, `idx`."""
    columns, classes = GLUE[task]
    rows = []
    for i in range(count):
        label: float = i % classes if classes > 1 else (i % 11) / 2
        texts = {column: (BAD if i % 2 == k else GOOD) + f" number {i % 7}" for k, column in enumerate(columns)}
        rows.append({**texts, "label": label, "idx": i})
    return rows


def write_glue(root: Path) -> Path:
    """A folder a task with Parquet shards named as the hub names them."""
    for task in GLUE:
        splits = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
        for split, count in (("train", 24), *((split, 12) for split in splits)):
            write_parquet(root / task / f"{split}-00000-of-00001.parquet", glue_rows(task, count))
    return root


def squad_paragraphs(count: int, v2: bool) -> list[dict[str, Any]]:
    """Paragraphs as in the official JSON; with v2, every second question has no answer."""
    paragraphs = []
    for i in range(count):
        name = ("Ann", "Bob", "Carl")[i % 3]
        context = f"The film number {i} was long and dull and empty. {name} made it. " + "It was fine. " * 12
        question: dict[str, Any] = {"id": f"q{i}", "question": "Who made the film?"}
        question["answers"] = [{"text": name, "answer_start": context.index(name)}]
        if v2:
            question["is_impossible"] = i % 2 == 1
            if question["is_impossible"]:
                question |= {"answers": [], "plausible_answers": question["answers"]}
        paragraphs.append({"context": context, "qas": [question]})
    return paragraphs


def write_squad(root: Path, v2: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 12), ("dev", 6)):
        content = {
            "version": "v2.0" if v2 else "1.1",
            "data": [{"title": "Film", "paragraphs": squad_paragraphs(count, v2)}],
        }
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def write_summaries(root: Path, source: str, target: str) -> Path:
    for split, count in (("train", 12), ("validation", 4)):
        rows = [{source: f"{GOOD} number {i}. " * 4, target: f"film number {i}", "id": str(i)} for i in range(count)]
        write_rows(root / f"{split}.jsonl", rows)
    return root


def train_tokenizer(kind: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """`deberta`: [CLS] text [SEP], pieces of words. `bart`: <s> text </s>, bytes. `llama`: <s> text, bytes, no pad."""
    deberta = kind == "deberta"
    begin, end, pad, unknown = ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if deberta else ("<s>", "</s>", "<pad>", "<unk>")
    special = [pad, begin, end, unknown, *(["[MASK]"] if deberta else [])]
    tokenizer = Tokenizer(models.Unigram() if deberta else models.BPE(unk_token=unknown))
    trainer: Any
    if deberta:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token=unknown)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.Metaspace() if deberta else decoders.ByteLevel()
    ids = [(token, tokenizer.token_to_id(token)) for token in (begin, end)]
    one, two = (
        (f"{begin} $A", f"{begin} $A $B")
        if kind == "llama"
        else (f"{begin} $A {end}", f"{begin} $A {end} $B:1 {end}:1")
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=one, pair=two, special_tokens=ids)
    names = {"bos_token": begin, "eos_token": end, "unk_token": unknown}
    if kind != "llama":
        names |= {"pad_token": pad, "cls_token": begin, "sep_token": end}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def corpus() -> list[str]:
    words = [word for word in ANSWERS for _ in range(50)]
    texts = [paragraph["context"] for paragraph in squad_paragraphs(6, v2=False)]
    return [GOOD, BAD, *texts, *(f"Question: is this grammatical? Answer: {word}" for word in words)]


def save_model(kind: str, directory: Path, width: int = 16) -> Path:
    """A tiny checkpoint of the real class, with its tokenizer; the width is the Llama's."""
    tokenizer, pooler = train_tokenizer(kind, corpus()), {}
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    model: Any
    if kind == "deberta":
        shape: dict[str, Any] = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
        }
        v3 = {"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True}
        v3 |= {"pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}
        config = DebertaV2Config(**size, **shape, **v3, pad_token_id=0)
        model = DebertaV2ForMaskedLM(config)
        pooler = DebertaV2ForSequenceClassification(config).pooler.state_dict(
            prefix="pooler."
        )  # released ones lack it
    elif kind == "bart":
        shape = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
        shape |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 2}
        model = BartForConditionalGeneration(
            BartConfig(**size, **shape, pad_token_id=0, bos_token_id=1, eos_token_id=2, forced_eos_token_id=2)
        )
    elif kind == "distilbert":
        shape = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
        model = DistilBertForMaskedLM(DistilBertConfig(**size, **shape, pad_token_id=0))
    else:
        shape = {
            "hidden_size": width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 2 * width,
        }
        tokenizer.chat_template = CHAT
        model = LlamaForCausalLM(LlamaConfig(**size, **shape, num_key_value_heads=1, bos_token_id=1, eos_token_id=2))
    model.save_pretrained(directory, state_dict=model.state_dict() | pooler)
    tokenizer.save_pretrained(directory)
    return directory
