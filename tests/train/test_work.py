import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recipes import family_arguments, write_rows
from transformers import (
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    XLNetConfig,
)

from weightlora.errors import ConfigError
from weightlora.train import parse, prepare
from weightlora.train.work import room_for

FIRST = "(counted from 0)"


def test_a_text_longer_than_the_model(world: Path, refused):
    arguments = ["--task", "xsum", "--dataset", world / "xsum", "--model", world / "bart"]
    for name in ("max_length", "max_target_length"):
        assert refused(*arguments, f"--{name}", 129).startswith(f"{name}=129 is longer than the model's 128 positions")


def test_a_cache_directory_with_a_curly_bracket(world: Path, refused, tmp_path: Path):
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "llama", "--pad_token", "</s>"]
    message = refused(*base, "--max_steps", 4, "--max_length", 64, "--use_cpu", "--cache_dir", tmp_path / "{a}")
    assert message.startswith(f"the prepared rows go to {tmp_path / '{a}'}") and "another --cache_dir" in message


def test_positions_that_begin_after_the_pad_token_are_not_room_for_a_text():
    config = RobertaConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=130,
        pad_token_id=1,
    )
    source: Any = SimpleNamespace(config=config, tokenizer=SimpleNamespace(model_max_length=10**30))
    source.arguments = SimpleNamespace(max_length=128)
    assert RobertaModel(config)(torch.full((1, room_for(source)), 5)).last_hidden_state.shape == (1, 128, 8)
    source.arguments.max_length = 129
    with pytest.raises(ConfigError, match="max_length=129 is longer than the model's 128 positions"):
        room_for(source)


@pytest.mark.parametrize("kind", ["t5", "deberta"])
def test_a_model_of_relative_positions_reads_texts_longer_than_those_of_its_pretraining(kind: str):
    if kind == "t5":
        config: Any = T5Config(vocab_size=9, d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1, n_positions=16)
        model: Any = T5EncoderModel(config)
    else:
        small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        config = DebertaV2Config(
            vocab_size=9, max_position_embeddings=16, relative_attention=True, position_biased_input=False, **small
        )
        model = DebertaV2Model(config)
    source: Any = SimpleNamespace(config=config, tokenizer=SimpleNamespace(model_max_length=16))
    source.arguments = SimpleNamespace(max_length=40)
    assert model(torch.full((1, room_for(source)), 5)).last_hidden_state.shape == (1, 40, 8)


def test_a_batch_is_not_padded_beyond_the_last_position(world: Path, tmp_path: Path):
    shutil.copytree(world / "bart", tmp_path / "bart")
    (path := tmp_path / "bart" / "config.json").write_text(
        json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 100})
    )
    pairs = [{"source": f"{i} " + "long " * 200, "target": "text " * 200} for i in range(4)]
    rows = write_rows(tmp_path / "rows.jsonl", pairs)
    given = ["--task", "seq2seq", "--model", tmp_path / "bart", "--train_file", rows, "--output_dir", tmp_path / "out"]
    for lengths in ((100, 32), (32, 100), (96, 96)):
        more = ["--use_cpu", "--max_length", lengths[0], "--max_target_length", lengths[1]]
        work = prepare(parse([str(value) for value in (*given, *more)])).work
        batch = work.collate([work.train[0]])
        assert (batch["input_ids"].shape[1], batch["labels"].shape[1]) == lengths


@pytest.mark.parametrize("task", ["cola", "squad", "token-classification", "xsum"])
def test_batches_are_padded_on_the_right_whatever_the_tokenizer_does(world: Path, tmp_path: Path, task: str):
    """Generation needs the left. There GPT-2 counts padding as positions: a text had other logits in each batch."""
    given = family_arguments(world, task, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(given[given.index("--model") + 1], padding_side="left")
    tokenizer.save_pretrained(tmp_path / "left")
    left, right = (prepare(parse([*given, *more])) for more in (["--tokenizer", str(tmp_path / "left")], []))
    rows = [{**right.work.train[0], "input_ids": [5, 6], "attention_mask": [1, 1]}, right.work.train[0]]
    rows[0] |= {"labels": [0, 0]} if task in ("token-classification", "xsum") else {}
    found, expected = ({k: v.tolist() for k, v in job.work.collate(rows).items()} for job in (left, right))
    assert found == expected and found["attention_mask"][0][-1] == 0
    assert left.tokenizer.padding_side == "left", "it is saved with the adapter"


def test_rows_that_another_version_made_are_made_again(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = parse(family_arguments(world, "squad", tmp_path))
    first, again = prepare(given).work.train, prepare(given).work.train
    assert first._fingerprint == again._fingerprint
    monkeypatch.setattr("weightlora.train.work.__version__", "0.0.0")
    assert prepare(given).work.train._fingerprint != first._fingerprint


@pytest.mark.parametrize(("task", "side"), [("cola", -1), ("squad", 0)])
def test_a_batch_for_xlnet_is_padded_where_its_head_reads_nothing(world: Path, tmp_path: Path, task: str, side: int):
    """Its head for classes reads the last position. Answers have positions, which padding on the left would move."""
    given = family_arguments(world, task, tmp_path)
    place = given.index("--model") + 1
    tokenizer = AutoTokenizer.from_pretrained(given[place], padding_side="left")
    given[place] = str(tmp_path / "xlnet")
    tokenizer.save_pretrained(given[place])
    XLNetConfig(vocab_size=len(tokenizer), d_model=8, n_layer=2, n_head=1, d_inner=8).save_pretrained(given[place])
    work = prepare(parse([*given, "--target_modules", "layer_1", "layer_2"])).work
    shortest, longest = (pick(work.train, key=lambda row: len(row["input_ids"])) for pick in (min, max))
    batch = work.collate([shortest, longest])
    assert batch["attention_mask"][0].min() == 0 and batch["attention_mask"][0][side] == 1
    if task == "squad":
        start = shortest["start_positions"]
        assert batch["input_ids"][0][batch["start_positions"][0]] == shortest["input_ids"][start]


def test_inputs_may_be_padded_to_max_length(world: Path, tmp_path: Path):
    for task in ("cola", "squad", "token-classification", "causal-lm", "sst2-verbalised"):
        work = prepare(parse([*family_arguments(world, task, tmp_path), "--pad_to_max_length"])).work
        batch = work.collate([work.train[i] for i in range(2)])
        assert batch["input_ids"].shape == (2, 64), task
